"""Segmenters by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certimed.errors import InputError
from certimed.models.forms import SEGMENTERS
from certimed.models.normalisation import choose
from certimed.segmenters.adapter import SegmentationModel, needed_multiple, required_output
from certimed.segmenters.small_unet import ARCHITECTURE, load_small_unet
from certimed.usercode import input_channels, is_user_code, load_user_model


def load_segmenter(
    spec: str | Path | nn.Module,
    device: torch.device | str = "cpu",
    *,
    num_classes: int | None = None,
    output: str | None = None,
    allow_code: bool = False,
    **settings: Any,
) -> SegmentationModel:
    """Load a segmentation network as a model for certification, frozen and in eval mode.

    Args:
        spec: one of

            * a form of :data:`certimed.models.forms.SEGMENTERS`, e.g. ``smp:Unet:resnet34:weights.safetensors``
              (``output`` required where its files do not say it);
            * a bare folder, recognised by its files;
            * ``python:MODULE:FACTORY``: code of your own that returns a :class:`SegmentationModel`, or a module
              (``num_classes`` and ``output`` required; its channels are those of its first convolution, else 3, and
              the multiple its sizes need is found by running it);
            * any ``nn.Module`` (``num_classes`` and ``output`` required).
        device: where the model runs.
        num_classes: classes, background counted; required for a module, checked otherwise.
        output: what the network returns, one of :data:`~certimed.segmenters.OUTPUT_NAMES`.
        allow_code: consent to run the code of a ``python:`` spec; see :mod:`certimed.usercode`.
        settings: ``normalise``, how the input was normalised in training
            (:data:`~certimed.models.normalisation.NORMALISE`); ``part`` of a checkpoint with several sets of
            weights (``smp:`` and ``monai:``); and of :class:`SegmentationModel` ``mean``, ``std``, ``channel_order``,
            ``window``, ``multiple_of``, ``in_channels`` and ``name`` (the last two for modules).

    Raises:
        InputError: the spec is not understood, a file is missing, or a required statement is.
        ModelError: weights that do not fit. MissingExtraError: the library is not installed.
    """
    if isinstance(spec, nn.Module):
        if num_classes is None:
            raise InputError("num_classes is missing; state the number of classes of the module, background counted")
        given = settings | choose(settings, settings.get("in_channels", 1)).settings
        model = SegmentationModel(spec, num_classes=num_classes, output=required_output(output, "a module"), **given)
    elif is_user_code(str(spec)):
        model = _user_segmenter(str(spec), num_classes, output, allow_code, settings)
    else:
        model = _from_spec(str(spec), output, settings)
    if num_classes is not None and model.num_classes != num_classes:
        raise InputError(f"num_classes={num_classes}, but {spec} has {model.num_classes}; leave num_classes out")
    return model.to(device)


def _user_segmenter(
    spec: str, num_classes: int | None, output: str | None, allow_code: bool, settings: dict[str, Any]
) -> SegmentationModel:
    user = load_user_model(spec, allow_code=allow_code)
    model = user.model
    if isinstance(model, SegmentationModel):
        if output not in (None, model.output):
            raise InputError(f"output={output!r}: {spec} states {model.output!r} itself; leave it out")
        if settings:
            raise InputError(f"{', '.join(settings)}: {spec} states its settings itself; leave them out")
        model.name = spec
    elif not isinstance(model, nn.Module):
        raise InputError(f"{spec} returned {type(model).__name__}; return an nn.Module or a SegmentationModel")
    elif num_classes is None:
        raise InputError(f"{spec} does not say how many classes it has; name them, background first, with --classes")
    else:
        given = {"in_channels": input_channels(model), "name": spec, **settings}
        given.setdefault("multiple_of", needed_multiple(model.eval(), given["in_channels"]))
        given |= choose(given, given["in_channels"]).settings
        model = SegmentationModel(
            model, num_classes=num_classes, output=required_output(output, "a module (--output)"), **given
        )
    return model.with_source(user.source_sha256)


def _from_spec(spec: str, output: str | None, settings: dict[str, Any]) -> SegmentationModel:
    prefix, reference = SEGMENTERS.split(spec) or (_recognise(spec), spec)
    model: SegmentationModel = SEGMENTERS.loader(prefix)(reference, output=output, **settings)
    return model


def small_unet(folder: str | Path, *, output: str | None = None, **settings: Any) -> SegmentationModel:
    """certimed's own small U-Net from its folder; it returns logits and takes values in [0, 1] as they are."""
    if output not in (None, "logits"):
        raise InputError(f"output={output!r}: the small U-Net returns logits; leave it out")
    network = load_small_unet(Path(folder).expanduser())
    shape = {name: getattr(network, name) for name in ("channels", "classes", "widths", "patch")}
    return SegmentationModel(
        network,
        num_classes=network.classes,
        output="logits",
        in_channels=network.channels,
        multiple_of=network.multiple,
        name=ARCHITECTURE,
        configuration={"architecture": ARCHITECTURE, **shape},
        libraries=("safetensors",),
        **(settings | choose(settings, network.channels).settings | {"notes": network.notes}),
    )


def _recognise(spec: str) -> str:
    folder = Path(spec).expanduser()
    if not folder.is_dir():
        raise SEGMENTERS.refusal(spec)
    if any((folder / "configs" / name).is_file() for name in ("inference.json", "evaluate.json", "train.json")):
        return "monai"
    config: Any = None
    if (folder / "config.json").is_file():
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{folder / 'config.json'} is not valid JSON ({error}); restore the file") from error
    if isinstance(config, dict):
        if "_model_class" in config:
            return "smp"
        if config.get("architecture") == ARCHITECTURE:
            return "unet"
        if config.get("model_type") == "sam":
            return "sam"
        if "architectures" in config or "model_type" in config:
            return "hf"
    raise SEGMENTERS.refusal(spec, f"folder {spec} holds no segmenter that is recognised")
