"""Classifiers from ONNX files."""

from __future__ import annotations

from typing import Any

from certimed.classifiers.model import ClassificationModel
from certimed.errors import InputError
from certimed.models.normalisation import choose
from certimed.models.onnx_network import LIBRARIES, OnnxNetwork

_SCORES = 2


def load_onnx(reference: str, name: str, **settings: Any) -> ClassificationModel:
    """A classifier from an ONNX file: ``(B, C, H, W)`` -> ``(B, K)``.

    Images are resized to the file's size, or ``size`` where it leaves that open, and passed in [0, 1] unless
    ``normalise`` says how they were normalised in training: a file says neither that nor the names of its classes.

    Args:
        reference: the file.
        name: how the user asked for the model.
        settings: size, normalise.

    Raises:
        InputError: a size that is missing or is not the file's, or as :class:`OnnxNetwork`.
        ModelError: as there.
    """
    network = OnnxNetwork(reference, _SCORES)
    own, given = network.space, settings.pop("size", None)
    size = tuple(have or want for have, want in zip(own, given or own))
    if None in size:
        raise InputError(f"{name} does not say how large its images are; add --size HEIGHTxWIDTH, e.g. --size 224x224")
    if given is not None and size != tuple(given):
        raise InputError(f"--size {given[0]}x{given[1]}: {name} takes images of {size[0]}x{size[1]}; leave --size out")
    channels = network.channels or 3
    chosen = choose(settings, channels, hint=f"{network.path.name} is an ONNX file")
    return ClassificationModel(
        network,
        input_shape=(channels, *size),  # type: ignore[arg-type]
        name=name,
        configuration={"onnx": network.digest},
        libraries=LIBRARIES,
        **chosen.settings,
    )
