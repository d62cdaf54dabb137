"""Segmentation networks from ONNX files."""

from __future__ import annotations

from typing import Any

import torch

from certimed.errors import InputError
from certimed.models.normalisation import choose
from certimed.models.onnx_network import LIBRARIES, OnnxNetwork
from certimed.segmenters.adapter import SegmentationModel, needed_multiple, required_output

_MASKS = 4
_SIDE = 64


def load_onnx(reference: str, *, output: str | None = None, **settings: Any) -> SegmentationModel:
    """A segmentation network from an ONNX file: ``(B, C, H, W)`` -> ``(B, K, H, W)``.

    Where the file leaves sizes open, the multiple it needs is found by running it.

    Args:
        reference: the file.
        output: what it returns; the file does not say.
        settings: normalise; and of :class:`SegmentationModel` mean, std, channel_order, multiple_of, window.

    Raises:
        InputError, ModelError: as :class:`OnnxNetwork`.
    """
    stated = required_output(output, "an ONNX file (--output)")
    network = OnnxNetwork(reference, _MASKS)
    channels = network.channels or 3
    chosen = choose(settings, channels, hint=f"{network.path.name} is an ONNX file")
    multiple = settings.pop("multiple_of", None)
    if multiple is None:
        multiple = 1 if None not in network.space else needed_multiple(network, channels)
    height, width = (side or _SIDE * multiple for side in network.space)
    classes = network(torch.zeros(1, channels, height, width)).shape[1]
    if stated.startswith("binary") and classes != 1:
        raise InputError(f"output={stated!r}: {network.path.name} answers {classes} channels; state 'logits'")
    return SegmentationModel(
        network,
        num_classes=2 if classes == 1 else classes,
        output=stated,
        in_channels=channels,
        multiple_of=multiple,
        name=network.path.name,
        configuration={"onnx": network.digest},
        libraries=LIBRARIES,
        **(settings | chosen.settings),
    )
