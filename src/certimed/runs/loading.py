"""From a request to a job: data and models are opened, and what does not fit together is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from certimed.assets import asset, demo_prompts
from certimed.certificates import NATIVE
from certimed.classifiers import ClassificationModel, load_classifier
from certimed.data import Dataset, class_balanced
from certimed.denoising import load_denoiser
from certimed.engine import (
    DENOISED,
    PLAIN,
    Engine,
    Method,
    ModelStream,
    model_device,
)
from certimed.errors import InputError
from certimed.measurements import parse_measurement
from certimed.models.device import checked_device
from certimed.noise import as_law
from certimed.runs.job import ClassJob, Job, MaskJob, MeasureJob
from certimed.runs.methods import Prompting, score_methods
from certimed.runs.targets import MaskTarget, MeasureTarget
from certimed.segmenters import NativeSegmenter, load_segmenter
from certimed.targets import Classes, Pixels
from certimed.usercode import is_user_code
from certimed.vlm import NativeModel, VisionLanguageModel

if TYPE_CHECKING:
    from certimed.runs.spec import RunSpec
DEFAULT_TEMPLATE = "an image of {}."


def load_job(spec: RunSpec, *, allow_code: bool = False, dataset: Dataset | None = None, model: Any = None) -> Job:
    """See :meth:`RunSpec.load`."""
    methods = spec.methods
    device = checked_device(spec.device)
    if (spec.denoiser is None) == (DENOISED in methods):
        raise InputError("a denoiser and the method denoised go together; give both, or neither")
    load = _load_masks if spec.segments else _load_classes
    return load(spec, dataset, allow_code, model, device)


def _load_classes(spec: RunSpec, dataset: Dataset | None, allow_code: bool, model: Any, device: torch.device) -> Job:
    if spec.data.reading.volume:
        raise InputError("classifiers take planes, and the data is read as volumes; certify slices (--slices all)")
    if spec.size is not None and len(spec.size) != 2:
        raise InputError(f"size {spec.size} has {len(spec.size)} sides, and classifiers take planes: give two")
    if spec.output is not None:
        raise InputError("output describes a segmentation network, and this run certifies classes")
    if model is None:
        model = load_classifier(spec.model, device, allow_code=allow_code, size=spec.size, normalise=spec.normalise)
    prompting = Prompting.read(spec.methods, spec.tuning)
    if isinstance(model, ClassificationModel):
        if spec.templates:
            raise InputError(f"{model.name} is a plain classifier, which has no text to prompt; leave templates out")
        methods: list[Method] = score_methods(spec.methods, model.num_classes)
        classes = spec.data.classes or model.class_names
        data = dataset or replace(spec.data, classes=classes).open()
        numbered = tuple(f"class {index}" for index in range(model.num_classes))
        names = class_names(data, spec.data.classes, model.class_names or numbered)
        _check_names(model, data, names)
        templates: tuple[str, ...] = ()
    else:
        data = dataset or spec.data.open()
        known = demo_prompts() if spec.model == "demo" else None
        fallback = prompting.class_names or (tuple(known["classes"].values()) if known else None)
        names = class_names(data, spec.data.classes, fallback)
        templates = spec.templates or tuple(known["templates"] if known else (DEFAULT_TEMPLATE,))
        assert isinstance(model, VisionLanguageModel)
        methods = prompting.methods(model, names, templates, spec.sigma)
    front = _denoiser(spec, model.device, allow_code)
    certified = NativeModel(model) if spec.space == NATIVE else model
    engine = _engine(spec, certified, front, methods, model.device, share_copies=True)
    target = Classes(len(names), spec.target.bound)  # type: ignore[union-attr]
    limited = _limited(data, spec)
    return ClassJob(spec, limited, names, engine, target, model, front, prompting.kinds, tuned_on=prompting.tuned_on)


def _load_masks(spec: RunSpec, dataset: Dataset | None, allow_code: bool, model: Any, device: torch.device) -> Job:
    if spec.templates or spec.tuning != type(spec.tuning)():
        raise InputError("templates and per-image tuning are for prompts, and this run certifies masks")
    assert isinstance(spec.target, MaskTarget | MeasureTarget)
    data = _limited(dataset or spec.data.open(), spec)
    named = str(asset("demo_unet")) if spec.model == "demo" else spec.model
    classes = spec.data.classes or data.class_names
    count = len(classes) if classes and is_user_code(named) else None
    if model is None:
        given = {} if spec.normalise is None else {"normalise": spec.normalise}
        model = load_segmenter(named, device, num_classes=count, output=spec.output, allow_code=allow_code, **given)
    _check_window(model, spec)
    front = _denoiser(spec, model_device(model), allow_code)
    names = tuple(classes or (f"class {index}" for index in range(model.num_classes)))
    if len(names) != model.num_classes:
        raise InputError(
            f"the data set has {len(names)} classes ({', '.join(names)}) and the network {model.num_classes}; "
            "the background counts as a class"
        )
    certified: nn.Module = model
    if spec.space == NATIVE:
        certified = NativeSegmenter(model, 1 if model.in_channels == 1 else None, spec.size)
    methods = score_methods(spec.methods, model.num_classes)
    engine = _engine(spec, certified, front, methods, model_device(model), share_copies=False)
    target = Pixels(model.num_classes, spec.target.taus, spec.target.correction) if spec.masks else None
    if isinstance(spec.target, MaskTarget):
        return MaskJob(spec, data, names, engine, target, model, front)
    measured = [parse_measurement(text, names, allow_code=allow_code) for text in spec.target.measurements]
    return MeasureJob(spec, data, names, engine, target, model, front, measurements=measured)


def _check_window(model: Any, spec: RunSpec) -> None:
    wanted, given = model.reading_window, spec.data.reading.window
    if wanted is None or (given is not None and all(abs(a - b) < 1e-3 * wanted[1] for a, b in zip(wanted, given))):
        return
    raise InputError(
        f"{model.name} was trained on intensities clipped to a window; read images with it: --window "
        f"{wanted[0]:.10g},{wanted[1]:.10g}"
    )


def _engine(
    spec: RunSpec, model: Any, front: Any, methods: Sequence[Method], device: torch.device, *, share_copies: bool
) -> Engine:
    streams = {PLAIN: ModelStream(model, acceleration=spec.speed.check_device(device))}
    if front is not None:
        # The denoiser is made for this sigma, and stands in front of any resize.
        streams[DENOISED] = ModelStream(model, front.at(spec.sigma).eval(), acceleration=spec.speed)
    law = as_law(spec.noise, spec.sigma)
    return Engine(streams, methods, law, space=spec.space, device=device, share_copies=share_copies)


def _denoiser(spec: RunSpec, device: torch.device, allow_code: bool) -> Any:
    if spec.denoiser is None:
        return None
    named = str(asset("demo_denoiser")) if spec.denoiser == "demo" else spec.denoiser
    return load_denoiser(named, device, allow_code=allow_code)


def _limited(dataset: Dataset, spec: RunSpec) -> Dataset:
    limit = spec.data.limit
    if limit is None or limit >= len(dataset):
        return dataset
    if not spec.segments and dataset.is_labelled:
        return class_balanced(dataset, limit, spec.seed)
    return dataset.subset(range(limit))


def class_names(
    dataset: Dataset, entries: Sequence[str] | None, fallback: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Names that go into the captions: the data set's; for unlabelled images those given, or what is known anyway."""
    if dataset.class_names is not None:
        return dataset.class_names
    if entries is not None:
        return tuple(entry.rpartition("=")[2].strip() or entry for entry in entries)
    if fallback is not None:
        return fallback
    raise InputError("the data set names no classes; give them, e.g. --classes 'covid,normal'")


def _check_names(model: ClassificationModel, dataset: Dataset, names: Sequence[str]) -> None:
    if len(names) != model.num_classes or model.class_names not in (None, tuple(names)):
        own = f"{model.num_classes} scores" + (f" ({', '.join(model.class_names)})" if model.class_names else "")
        raise InputError(
            f"{model.name} returns {own} and the images are of {len(names)} classes ({', '.join(names)}); name all "
            "classes in the order of the scores with --classes"
        )
