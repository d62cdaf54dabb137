"""Promptable segmenters: SamModel of transformers, as SAM and MedSAM are published; a box or a click per image.

The image encoder is the cost, the decoder is not: an image is embedded once, and every box is answered from the
embedding. Preparation and the way back are the library's own (SamProcessor): the longer side becomes the encoder's, by
bilinear interpolation with antialiasing, values are normalised and padded at the right and below; the mask's logits are
enlarged to the padded square, cropped, and resized to the image. In floats throughout, where the library goes through 8
bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from certimed.errors import InputError, ModelError, require
from certimed.models.fitting import load_pretrained, quiet_build
from certimed.models.identity import adapter_identity
from certimed.models.normalisation import choose
from certimed.models.sources import brief, read_json, resolve_folder
from certimed.models.weights import find_weights, read_weights
from certimed.segmenters.adapter import Segmenter, channel_values
from certimed.segmenters.transformers import FILES, NO_BEHAVIOUR, WEIGHTS, own_normalisation


class PromptedSegmenter(Segmenter):
    """A SamModel that answers boxes and clicks: scores of background and object, ``(B, 2, H, W)``, the first one 0.

    Args:
        model: a ``SamModel`` in eval mode.
        mean, std: of its normalisation, in [0, 1] units.
        configuration, state: what decides the function, for its identity.
        notes: what a loader had to decide.

    Attributes:
        num_classes: 2.
        identity, identity_complete: see :class:`certimed.segmenters.SegmentationModel`.
    """

    num_classes = 2
    in_channels = 3
    axes = 2
    output = "logits"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Any,
        *,
        mean: Any,
        std: Any,
        configuration: Mapping[str, Any],
        state: Mapping[str, Tensor],
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.name, self.notes = type(model).__name__, notes
        self.libraries = ("transformers", "safetensors")
        self.side = int(model.config.vision_config.image_size)
        self.register_buffer("mean", channel_values("mean", mean, 3), persistent=False)
        self.register_buffer("std", channel_values("std", std, 3), persistent=False)
        self.eval()
        about = {"kind": "prompted segmenter", "mean": self.mean.tolist(), "std": self.std.tolist()}
        self.identity, self.identity_complete = adapter_identity(model, about, configuration, state)

    @property
    def normalisation(self) -> dict[str, Any]:
        """Mean and std, for the record."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "channel_order": "rgb"}

    def embed(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1], grey or colour -> embeddings ``(B, D, h, w)``.

        Raises:
            ModelError: images that are no planes of 1 or 3 channels.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ModelError(
                f"{self.name} takes planes of 1 or 3 channels, but the image has shape {tuple(x.shape[1:])}"
            )
        return self.model.vision_encoder(self.prepared(x))[0]  # type: ignore[no-any-return]

    def prepared(self, x: Tensor) -> Tensor:
        """What the encoder is given: ``(B, 3, side, side)``."""
        x = x.expand(-1, 3, -1, -1)
        size = self._resized(x.shape[2:])
        if tuple(x.shape[2:]) != size:
            x = functional.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        x = (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)
        return functional.pad(x, (0, self.side - size[1], 0, self.side - size[0]))

    def answer(self, embeddings: Tensor, prompts: Tensor, size: tuple[int, int]) -> Tensor:
        """Scores ``(B, 2, H, W)`` for prompts in pixels of the image of this size.

        Args:
            embeddings: of one image ``(1, D, h, w)``, for all prompts; or one for each.
            prompts: float ``(B, 4)``, boxes as left, top, right, bottom; or ``(B, 2)``, clicks as right, down.
            size: ``(H, W)`` of the image.
        """
        height, width = self._resized(size)
        per_side = torch.tensor([width / size[1], height / size[0]], dtype=prompts.dtype, device=prompts.device)
        placed = (prompts * per_side.repeat(prompts.shape[1] // 2)).float()
        placed = placed.unsqueeze(0) if len(embeddings) == 1 else placed.unsqueeze(1)
        given = {"input_boxes": placed} if prompts.shape[1] == 4 else {"input_points": placed.unsqueeze(2)}
        masks = self.model(image_embeddings=embeddings, multimask_output=False, **given).pred_masks
        logits = masks.reshape(len(prompts), 1, *masks.shape[-2:])
        logits = functional.interpolate(logits, size=(self.side, self.side), mode="bilinear", align_corners=False)
        logits = logits[..., :height, :width]
        logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return torch.cat([torch.zeros_like(logits), logits], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Refuses by ModelError: a box or click belongs to every image, see :meth:`answer`."""
        raise ModelError(f"{self.name} answers boxes and clicks; bind one to the image first")

    def _resized(self, size: Any) -> tuple[int, int]:
        height, width = size
        scale = self.side / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)


def sam_segmenter(reference: str, *, output: str | None = None, **settings: Any) -> PromptedSegmenter:
    """A promptable segmenter by folder or hub name: ``config.json``, ``preprocessor_config.json``, weights.

    Args:
        reference: folder or ``ORG/NAME``.
        output: these models return logits; anything else is refused.
        settings: ``normalise``, ``mean`` and ``std``, where the folder does not say.

    Raises:
        InputError: the folder lacks a file, or mean and std are nowhere stated. ModelError: unusable weights.
    """
    if output not in (None, "logits"):
        raise InputError(f"output={output!r}: promptable segmenters return logits; leave it out")
    folder = resolve_folder(reference, WEIGHTS)
    config = read_json(folder / "config.json", "the architecture")
    library = require("transformers", "segment")
    if config.get("model_type") != "sam":
        raise InputError(f"{folder / 'config.json'} is of model_type {config.get('model_type')!r:.40}, not 'sam'")
    try:
        built = library.SamConfig.from_pretrained(str(folder), local_files_only=True)
        with quiet_build(), torch.device("meta"):
            library.SamModel(built)
    # Model constructors raise whatever their parsing trips over.
    except Exception as error:
        raise ModelError(
            f"{folder} is no SamModel transformers can load ({type(error).__name__}: {brief(error)})"
        ) from error
    weights = read_weights(find_weights(folder, FILES, "save the model with save_pretrained"))
    model, filled = load_pretrained(library.SamModel, built, weights, advice="use a checkpoint of a SamModel")
    chosen = choose(settings, 3, own=own_normalisation(folder, "mean" in settings or "normalise" in settings))
    given = settings | chosen.settings
    return PromptedSegmenter(
        model,
        mean=given.get("mean", 0.0),
        std=given.get("std", 1.0),
        configuration={name: value for name, value in config.items() if name not in NO_BEHAVIOUR},
        state=filled.tensors,
        notes=(*filled.notes, *chosen.notes),
    )
