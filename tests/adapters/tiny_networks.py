"""Networks of the kinds that an adapter can be put on, a millisecond large, as one's own code."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from toys import CLASS_NAMES

from certimed import ClassificationModel
from certimed.segmenters import SegmentationModel

SIZE = 8
NAMES = CLASS_NAMES


class Block(nn.Module):
    """A transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


class Vit(nn.Module):
    """Grey images of 8 by 8, three classes."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 4, 4)
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.head = nn.Linear(width, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))


class Cnn(nn.Module):
    """A segmentation network: two classes a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def _seeded(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return kind().eval()


def classifier() -> ClassificationModel:
    """A ViT of one's own."""
    return ClassificationModel(_seeded(Vit), input_shape=(1, SIZE, SIZE), class_names=NAMES, name="tiny vit")


def segmenter() -> SegmentationModel:
    """A CNN of one's own."""
    return SegmentationModel(_seeded(Cnn), num_classes=2, output="logits", in_channels=1, name="tiny cnn")


def class_examples(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Stripes across, stripes down, or none; ``count`` of each class."""
    rng = torch.Generator().manual_seed(seed)
    base = 0.5 + 0.1 * torch.rand(3 * count, 1, SIZE, SIZE, generator=rng)
    labels = torch.arange(3 * count) % 3
    wave = 0.25 * torch.tensor([1.0, -1.0]).repeat(SIZE // 2)
    base[labels == 0] += wave
    base[labels == 1] += wave.view(-1, 1)
    return base.clamp(0, 1), labels


def mask_examples(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Bright squares on a dark ground."""
    rng = torch.Generator().manual_seed(seed)
    images = 0.2 + 0.1 * torch.rand(count, 1, SIZE, SIZE, generator=rng)
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.int64)
    for index in range(count):
        row, column = (int(one) for one in torch.randint(0, 4, (2,), generator=rng))
        images[index, 0, row : row + 4, column : column + 4] = 0.8
        masks[index, row : row + 4, column : column + 4] = 1
    return images, masks
