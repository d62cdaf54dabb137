"""Classifiers by name: a row of :data:`certimed.models.forms.CLASSIFIERS`, a folder, or code of one's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from certimed.classifiers.model import ClassificationModel
from certimed.errors import InputError
from certimed.models.device import checked_device
from certimed.models.forms import CLASSIFIERS
from certimed.models.identity import behaviour_digest
from certimed.models.normalisation import choose
from certimed.usercode import UserModel, input_channels, is_user_code, load_user_model
from certimed.vlm import VisionLanguageModel, load
from certimed.vlm.loading import named


def load_classifier(
    spec: str,
    device: str | torch.device = "cpu",
    *,
    allow_code: bool = False,
    size: tuple[int, int] | None = None,
    normalise: str | None = None,
) -> VisionLanguageModel | ClassificationModel:
    """What classifies images, by name.

    Args:
        spec: a form of :data:`certimed.models.forms.CLASSIFIERS`, ``demo``, a folder of one of these kinds, or
            ``python:module:factory``, whose factory returns an ``nn.Module`` of scores, a
            :class:`ClassificationModel`, or a ``VisionLanguageModel``.
        device: where the model runs.
        allow_code: consent to run the code; see :mod:`certimed.usercode`.
        size: ``(H, W)`` images are resized to, whatever their aspect ratio, for models that do not say it: a bare
            ``nn.Module`` (its channels are those of its first convolution, else 3) and ONNX files; of timm and
            torchvision models instead of their own size and crop.
        normalise: one of :data:`certimed.models.normalisation.NORMALISE`, where the model does not say it, or instead.

    Returns:
        the model, frozen, in eval mode. The identity of one made by code covers its weights and the digest of the
        module's source file.

    Raises:
        InputError: as :func:`certimed.usercode.load_user_model`, or a size missing or out of place.
        ModelError: as :class:`ClassificationModel`.
    """
    place = checked_device(device)
    if not is_user_code(spec):
        prefix, reference = named(spec)
        if prefix == "demo":
            _refuse(spec, size, normalise)
            return load(spec, place)
        given: dict[str, Any] = {"size": size, "normalise": normalise}
        settings = {name: value for name, value in given.items() if value is not None}
        row = CLASSIFIERS.rows[prefix]
        if row.loader == row.prompted:
            _refuse(spec, size, normalise)
        model: VisionLanguageModel | ClassificationModel = CLASSIFIERS.loader(prefix)(reference, spec, **settings)
        return model.to(place)
    user = load_user_model(spec, allow_code=allow_code)
    made: Any = user.model
    if isinstance(made, VisionLanguageModel):
        _refuse(spec, size, normalise)
        return _identified(made, spec, user).to(place)
    if isinstance(made, ClassificationModel):
        _refuse(spec, size, normalise)
        made.name = spec
        return made.with_source(user.source_sha256).to(place)
    if not isinstance(made, nn.Module):
        kind = type(made).__name__
        raise InputError(f"{spec} returned {kind}; return an nn.Module or a certimed.ClassificationModel")
    if size is None:
        raise InputError(
            f"{spec} does not say how large its images are; add --size HEIGHTxWIDTH, e.g. --size 224x224, or return a "
            "certimed.ClassificationModel"
        )
    channels, settings = input_channels(made), {"normalise": normalise}
    chosen = choose(settings, channels).settings
    wrapped = ClassificationModel(made, input_shape=(channels, *size), name=spec, **chosen)
    return wrapped.with_source(user.source_sha256).to(place)


def load_prompted(spec: str, device: str | torch.device = "cpu", *, allow_code: bool = False) -> VisionLanguageModel:
    """As :func:`load_classifier` where prompts are learnt: vision-language models only.

    Raises:
        InputError: as there, or a plain classifier, which reads no prompt.
    """
    if not is_user_code(spec):
        return load(spec, device)
    place, user = checked_device(device), load_user_model(spec, allow_code=allow_code)
    if not isinstance(user.model, VisionLanguageModel):
        raise InputError(f"{spec} returned a plain classifier, which reads no prompt; name a vision-language model")
    return _identified(user.model, spec, user).to(place)


def _identified(model: VisionLanguageModel, spec: str, user: UserModel) -> VisionLanguageModel:
    about = {"identity": model.identity, "source": user.source_sha256}
    model.identity, model.identity_complete = behaviour_digest(model, about), False
    model.name = spec
    return model


def _refuse(spec: str, size: tuple[int, int] | None, normalise: str | None) -> None:
    if size is not None:
        raise InputError(f"--size {size[0]}x{size[1]}: {spec} states its own input size; leave --size out")
    if normalise is not None:
        raise InputError(f"--normalise {normalise}: {spec} states its own normalisation; leave --normalise out")
