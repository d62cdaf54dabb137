"""From a request to a job: data and models are opened, and what does not fit together is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from certimed.adapters import TEST_TIME, stream_name
from certimed.assets import asset, demo_prompts
from certimed.certificates import MODEL_INPUT
from certimed.classifiers import ClassificationModel, load_classifier
from certimed.data import Dataset, class_balanced
from certimed.denoising import load_denoiser
from certimed.engine import (
    DENOISED,
    FLOAT32,
    PLAIN,
    Engine,
    Method,
    ModelStream,
    Stream,
    model_device,
)
from certimed.errors import InputError
from certimed.measurements import parse_measurement
from certimed.models.device import checked_device
from certimed.noise import as_law
from certimed.runs.binding import Binding
from certimed.runs.job import ClassJob, Job, MaskJob, MeasureJob
from certimed.runs.methods import Prompting
from certimed.runs.targets import MaskTarget, MeasureTarget
from certimed.segmenters import NativeSegmenter, PromptedSegmenter, load_segmenter
from certimed.targets import Classes, Pixels
from certimed.usercode import is_user_code
from certimed.vlm import NativeModel, VisionLanguageModel

if TYPE_CHECKING:
    from certimed.runs.spec import RunSpec
DEFAULT_TEMPLATE = "an image of {}."
_TOGETHER = "a denoiser and a method behind it (denoised, or an adapter) go together; give both, or neither"


def load_job(spec: RunSpec, *, allow_code: bool = False, dataset: Dataset | None = None, model: Any = None) -> Job:
    """See :meth:`RunSpec.load`."""
    device = checked_device(spec.device)
    if (spec.denoiser is None) and DENOISED in spec.methods:
        raise InputError(_TOGETHER)
    prompting = Prompting.read(spec.methods, spec.tuning)
    if (spec.denoiser is None) == prompting.denoised:
        raise InputError(_TOGETHER)
    if TEST_TIME in prompting.kinds.values() and (spec.space != MODEL_INPUT or spec.speed != FLOAT32):
        raise InputError(
            f"{TEST_TIME} tunes and answers in float32 at the model's input; leave out precision and space"
        )
    load = _load_masks if spec.segments else _load_classes
    job = load(spec, prompting, dataset, allow_code, model, device)
    if job.binding is not None:
        job.binding.check([entry.kind for entry in job.entries])
    return job


def _load_classes(
    spec: RunSpec, prompting: Prompting, dataset: Dataset | None, allow_code: bool, model: Any, device: torch.device
) -> Job:
    if spec.data.reading.volume:
        raise InputError("classifiers take planes, and the data is read as volumes; certify slices (--slices all)")
    if spec.size is not None and len(spec.size) != 2:
        raise InputError(f"size {spec.size} has {len(spec.size)} sides, and classifiers take planes: give two")
    if spec.output is not None:
        raise InputError("output describes a segmentation network, and this run certifies classes")
    if model is None:
        model = load_classifier(spec.model, device, allow_code=allow_code, size=spec.size, normalise=spec.normalise)
    front = load_front(spec.denoiser, model.device, allow_code)
    fronted = None if front is None else front.identity
    if isinstance(model, ClassificationModel):
        if spec.templates:
            raise InputError(f"{model.name} is a plain classifier, which has no text to prompt; leave templates out")
        classes = spec.data.classes or model.class_names
        data = dataset or replace(spec.data, classes=classes).open()
        numbered = tuple(f"class {index}" for index in range(model.num_classes))
        names = class_names(data, spec.data.classes, model.class_names or numbered)
        _check_names(model, data, names)
        adapted = prompting.adapted(model, names, "classes", fronted)
        methods = prompting.scored(model, adapted)
    else:
        data = dataset or spec.data.open()
        names, templates = _words(spec.model, data, spec.data.classes, spec.templates, prompting.class_names)
        assert isinstance(model, VisionLanguageModel)
        adapted = prompting.adapted(model, names, "classes", fronted)
        methods = prompting.methods(model, names, templates, spec.sigma, adapted)

    def certified(one: Any) -> Any:
        return one if spec.space == MODEL_INPUT else NativeModel(one)

    binding = Binding.of(spec, model, allow_code=allow_code)
    streams = _bound(binding, _streams(spec, prompting, model, adapted, front, certified))
    engine = _engine(spec, streams, methods, model.device, share_copies=True)
    target = Classes(len(names), spec.target.bound)  # type: ignore[union-attr]
    limited = _limited(data, spec)
    job = ClassJob(spec, limited, names, engine, target, model, front, prompting)
    job.binding = binding
    return job


def _load_masks(
    spec: RunSpec, prompting: Prompting, dataset: Dataset | None, allow_code: bool, model: Any, device: torch.device
) -> Job:
    if spec.templates or spec.tuning != type(spec.tuning)():
        raise InputError("templates and per-image tuning are for prompts, and this run certifies masks")
    assert isinstance(spec.target, MaskTarget | MeasureTarget)
    data = _limited(dataset or spec.data.open(), spec)
    classes = spec.data.classes or data.class_names
    if model is None:
        given = {} if spec.normalise is None else {"normalise": spec.normalise}
        model = _segmenter(spec.model, device, classes, spec.output, allow_code, given)
    _check_window(model, spec)
    front = load_front(spec.denoiser, model_device(model), allow_code)
    names = _mask_names(model, classes)
    adapted = prompting.adapted(model, names, "masks", None if front is None else front.identity)
    methods = prompting.scored(model, adapted)

    def certified(one: Any) -> Any:
        if spec.space == MODEL_INPUT or isinstance(one, PromptedSegmenter):
            return one
        return NativeSegmenter(one, 1 if one.in_channels == 1 else None, spec.size)

    binding = Binding.of(spec, model, allow_code=allow_code)
    streams = _bound(binding, _streams(spec, prompting, model, adapted, front, certified))
    engine = _engine(spec, streams, methods, model_device(model), share_copies=False)
    target = Pixels(model.num_classes, spec.target.taus, spec.target.correction) if spec.masks else None
    if isinstance(spec.target, MaskTarget):
        job = MaskJob(spec, data, names, engine, target, model, front, prompting)
    else:
        measured = [parse_measurement(text, names, allow_code=allow_code) for text in spec.target.measurements]
        if spec.vary and (reading := [one.name for one in measured if one.kind.reads_image]):
            raise InputError(f"{reading[0]} looks at noisy pixels, and the noise is on settings; leave it out")
        job = MeasureJob(spec, data, names, engine, target, model, front, prompting, measurements=measured)
    job.binding = binding
    return job


def _bound(binding: Binding | None, streams: dict[str, Stream]) -> dict[str, Stream]:
    return streams if binding is None else {name: binding.stream(stream) for name, stream in streams.items()}


def _check_window(model: Any, spec: RunSpec) -> None:
    wanted, given = model.reading_window, spec.data.reading.window
    if wanted is None or (given is not None and all(abs(a - b) < 1e-3 * wanted[1] for a, b in zip(wanted, given))):
        return
    raise InputError(
        f"{model.name} was trained on intensities clipped to a window; read images with it: --window "
        f"{wanted[0]:.10g},{wanted[1]:.10g}"
    )


def _streams(
    spec: RunSpec,
    prompting: Prompting,
    model: Any,
    adapted: Mapping[str, Any],
    front: Any,
    certified: Callable[[Any], Any],
) -> dict[str, Stream]:
    """What noisy copies go through: the model, the model behind the denoiser, and every adapted model on its own."""
    # The denoiser is made for this sigma, and stands in front of any resize.
    cleaned = None if front is None else front.at(spec.sigma).eval()
    spec.speed.check_device(model_device(model))
    streams: dict[str, Stream] = {PLAIN: ModelStream(certified(model), acceleration=spec.speed)}
    if cleaned is not None:
        streams[DENOISED] = ModelStream(certified(model), cleaned, acceleration=spec.speed)
    for one in prompting.entries:
        if one.name in adapted:
            own = certified(adapted[one.name])
            streams[stream_name(one.name)] = ModelStream(own, cleaned if one.behind else None, acceleration=spec.speed)
    return streams


def _engine(
    spec: RunSpec,
    streams: Mapping[str, Stream],
    methods: Sequence[Method],
    device: torch.device,
    *,
    share_copies: bool,
) -> Engine:
    law = as_law(spec.noise, spec.sigma)
    return Engine(streams, methods, law, space=spec.space, device=device, share_copies=share_copies)


def load_front(named: str | None, device: torch.device | str, allow_code: bool) -> Any:
    """The denoiser of a name, or None."""
    if named is None:
        return None
    return load_denoiser(str(asset("demo_denoiser")) if named == "demo" else named, device, allow_code=allow_code)


def load_tuned(
    named: str,
    dataset: Dataset,
    entries: Sequence[str] | None,
    *,
    task: str = "classes",
    device: str = "cpu",
    allow_code: bool = False,
    output: str | None = None,
    normalise: str | None = None,
    size: tuple[int, int] | None = None,
    templates: Sequence[str] | None = None,
) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """What an adapter is learnt on: model, class names and captions, found as a run finds them.

    Args:
        named: the model, as of :class:`RunSpec`.
        dataset: images to learn from.
        entries: class names that were given.
        task: ``"classes"`` or ``"masks"``.
        device, allow_code, output, normalise, size, templates: as of :class:`RunSpec`.

    Raises:
        InputError: as :meth:`RunSpec.load`.
    """
    place = checked_device(device)
    if task == "masks":
        classes = tuple(entries) if entries else dataset.class_names
        model: Any = _segmenter(
            named, place, classes, output, allow_code, {} if normalise is None else {"normalise": normalise}
        )
        return model, _mask_names(model, classes), ()
    model = load_classifier(named, place, allow_code=allow_code, size=size, normalise=normalise)
    if isinstance(model, ClassificationModel):
        numbered = tuple(f"class {index}" for index in range(model.num_classes))
        names = class_names(dataset, entries, model.class_names or numbered)
        _check_names(model, dataset, names)
        return model, names, ()
    return model, *_words(named, dataset, entries, tuple(templates or ()), None)


def _words(
    named: str,
    dataset: Dataset,
    entries: Sequence[str] | None,
    templates: tuple[str, ...],
    learnt: tuple[str, ...] | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names and captions of a model that reads prompts."""
    known = demo_prompts() if named == "demo" else None
    names = class_names(dataset, entries, learnt or (tuple(known["classes"].values()) if known else None))
    return names, templates or tuple(known["templates"] if known else (DEFAULT_TEMPLATE,))


def _segmenter(
    named: str,
    device: torch.device | str,
    classes: Sequence[str] | None,
    output: str | None,
    allow_code: bool,
    settings: dict[str, Any],
) -> Any:
    place = str(asset("demo_unet")) if named == "demo" else named
    count = len(classes) if classes and is_user_code(place) else None
    return load_segmenter(place, device, num_classes=count, output=output, allow_code=allow_code, **settings)


def _mask_names(model: Any, classes: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(classes or (f"class {index}" for index in range(model.num_classes)))
    if len(names) != model.num_classes:
        raise InputError(
            f"the data set has {len(names)} classes ({', '.join(names)}) and the network {model.num_classes}; "
            "the background counts as a class"
        )
    return names


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
