"""Certify at native resolution: the preparation of images becomes the first layer of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from certimed.models.identity import combined, is_complete
from certimed.operators import apply
from certimed.vlm.protocol import ImageModel

if TYPE_CHECKING:
    from typing_extensions import Self


class NativeModel(nn.Module):
    """``model(prepare(x))`` on images of any size: noise is added to ``x`` at native resolution.

    Any fixed function of the noisy image is a legal base classifier, so the certificate of Cohen et al. (ICML 2019)
    holds at native resolution as it stands, with sigma and radius in native units; no norm of the preparation enters.
    A resize averages pixels, so the model sees less noise than sigma: for a smaller image, by about the norm of the
    resize. A denoiser belongs in front of the whole, at native resolution, where the noise has the level it was made
    for.

    Attributes:
        identity: differs from the model's own, as it is another function.
        identity_complete: as the model's.
        input_shape: of the model, after preparation.

    Args:
        model: a vision-language model or a classifier, in eval mode.
    """

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self.model = model
        self.name = model.name
        self.identity = combined("native", model.identity)
        self.identity_complete = is_complete(model)
        self.input_shape = model.input_shape
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, as what is inside."""
        return super().train(False)

    def prepare(self, x: Tensor) -> Tensor:
        """Native images ``(B, C, H, W)`` -> ``(B, *input_shape)``, each as the model's ``preprocess`` does it."""
        geometry = self.model.geometry(tuple(x.shape[1:]))
        if geometry is None:
            return torch.stack([self.model.preprocess(one) for one in x])
        with torch.autocast(x.device.type, enabled=False):
            return apply(geometry, x.float())

    def encode_image(self, x: Tensor) -> Tensor:
        """Features of native images: float ``(B, C, H, W)`` -> ``(B, D)``."""
        return self.model.encode_image(self.prepare(x))

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`encode_image`; of a classifier these are its scores."""
        return self.encode_image(x)
