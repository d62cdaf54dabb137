"""What a run is, as data: everything that decides its certificates, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from certimed.budgets import Fixed, Goal, as_budget, start_interval
from certimed.certificates import MODEL_INPUT, NATIVE, SETTINGS, SPACES
from certimed.data import DEFAULT_READ, Dataset, ReadOptions, open_dataset
from certimed.engine import FLOAT32, PLAIN, Acceleration, check_samples, check_sigma
from certimed.engine.throughput import check_batch_size
from certimed.errors import InputError
from certimed.noise import DEFAULT_LAW, as_law
from certimed.runs.targets import ClassTarget, MaskTarget, MeasureTarget, Tuning
from certimed.settings import read_vary, spelt

if TYPE_CHECKING:
    from certimed.runs.job import Job


@dataclass(frozen=True)
class DataSpec:
    """Which images, and how they are read; see :func:`certimed.data.open_dataset`.

    Attributes:
        path: folder of images or class subfolders, a single image, or an ``.npz``.
        classes: class names in words, or ``FOLDER=WORDS``.
        labels: CSV of labels for a flat folder.
        masks: folder of masks.
        split: part of the data set.
        image_column, label_column: columns of the table, where they have other names than the known ones.
        patches: ``grid:SIZE`` or a CSV of patches, for whole-slide images.
        slices: ``all``, ``every:K`` or ``A:B``: the slices of volumes that are images, for networks of planes.
        boxes: CSV with the columns image, left, top, right, bottom: the box of each image, for promptable segmenters;
            None: around the true mask.
        limit: the first so many images only, class-balanced where they are labelled.
        reading: how files are read.
        items: ids of the images that are taken, in this order; None: all.
        groups: patient or sequence of each of ``items``, where the files do not say.
    """

    path: str
    classes: tuple[str, ...] | None = None
    labels: str | None = None
    masks: str | None = None
    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    patches: str | None = None
    slices: str | None = None
    boxes: str | None = None
    limit: int | None = None
    reading: ReadOptions = DEFAULT_READ
    items: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit {self.limit} leaves no image; use 1 or more")

    def open(self) -> Dataset:
        """The data set; pixels are not read yet.

        Raises:
            InputError: see :func:`certimed.data.open_dataset`; an item that is not there, or groups that do not fit.
        """
        whole = open_dataset(
            self.path,
            classes=self.classes,
            labels=None if self.labels is None else Path(self.labels),
            split=self.split,
            options=self.reading,
            masks=None if self.masks is None else Path(self.masks),
            image_column=self.image_column,
            label_column=self.label_column,
            patches=self.patches,
            slices=self.slices,
        )
        if self.groups is not None and len(self.groups) != len(self.items or ()):
            raise InputError(f"{len(self.groups)} groups do not fit {len(self.items or ())} items; give one for each")
        if self.items is None:
            return whole
        places = {item: index for index, item in enumerate(whole.ids)}
        missing = [item for item in self.items if item not in places]
        if missing:
            raise InputError(f"{self.path} has no image {missing[0]!r:.80}, which items names; use the ids it has")
        part = whole.subset(places[item] for item in self.items)
        if self.groups is None:
            return part
        return replace(part, items=tuple(replace(one, group=g) for one, g in zip(part.items, self.groups, strict=True)))


@dataclass(frozen=True)
class RunSpec:
    """A certification run, before anything is loaded: the manifest's ``request``.

    Attributes:
        model: how the model is named; see :func:`certimed.classifiers.load_classifier` and
            :func:`certimed.segmenters.load_segmenter`.
        data: the images.
        target: what is certified.
        methods: names of methods, and prompt files, see :class:`certimed.runs.MethodSpec`; all are certified on the
            same noise.
        sigma: noise standard deviation in [0, 1] units.
        noise: name of the noise law.
        budget: spelling of a budget, a number of samples, or None: ``grid`` for labels, else ``fixed:100``.
        n0: selection samples; None: 100 for labels, 10 for masks, 0 for measurements alone, which need none.
        alpha: failure probability of each certificate.
        seed: of all noise.
        space: where noise is added; see :mod:`certimed.certificates.scope`.
        denoiser: of the method "denoised".
        templates: captions with ``{}`` for the class name, averaged.
        tuning: of per-image tuned prompts.
        size: ``(height, width)``, or three sides of volumes, that images are resized to; None: native, or what the
            model says.
        resample: millimetres from pixel to pixel along each axis that images are resized to, in place of a size.
        output: what a segmentation network returns, where its files do not say.
        normalise: how a network's input is normalised, where its files do not say.
        device: where the model runs; ``"auto"``: on a GPU where there is one.
        batch_size: noisy copies a forward pass, None, or ``"auto"``.
        speed: precision and compilation.
        vary: settings of the workflow and their noise, see :func:`certimed.settings.read_vary`: then the space is
            "settings", sigma 1 and the noise on the settings alone.

    Raises:
        InputError: an impossible setting.
    """

    model: str
    data: DataSpec
    target: ClassTarget | MaskTarget | MeasureTarget = field(default_factory=ClassTarget)
    methods: tuple[str, ...] = (PLAIN,)
    sigma: float = 0.25
    noise: str = DEFAULT_LAW
    budget: Any = None
    n0: int | None = None
    alpha: float = 1e-3
    seed: int = 0
    space: str = MODEL_INPUT
    denoiser: str | None = None
    templates: tuple[str, ...] = ()
    tuning: Tuning = field(default_factory=Tuning)
    size: tuple[int, ...] | None = None
    resample: tuple[float, ...] | None = None
    output: str | None = None
    normalise: str | None = None
    device: str = "auto"
    batch_size: int | str | None = None
    speed: Acceleration = FLOAT32
    vary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_vary()
        self.target.check()
        budget = as_budget(self.budget, default=Fixed(100) if self.segments else None)
        selecting = self.masks or not self.segments
        object.__setattr__(self, "budget", str(budget))
        usual = 100 if not self.segments else 10 if self.masks else 0
        object.__setattr__(self, "n0", usual if self.n0 is None else self.n0)
        object.__setattr__(self, "sigma", check_sigma(self.sigma))
        assert self.n0 is not None
        if not selecting and self.n0:
            raise InputError(f"n0={self.n0}: measurements have no selection samples; leave n0 out, or name a tau")
        check_samples(n0=self.n0 if selecting else None, n=budget.cap, alpha=self.alpha)
        if not self.methods:
            raise InputError(f"no method is named; name one, e.g. {PLAIN}")
        if self.size is not None and len(self.size) not in (2, 3):
            raise InputError(f"size {self.size} must hold two sides, or three of volumes")
        if self.size is not None and min(self.size) < 1:
            raise InputError(f"size {self.size} has an empty side; use e.g. (224, 224)")
        if self.resample is not None:
            self._check_resample(self.resample)
        if self.space not in SPACES:
            raise InputError(f"space={self.space!r} is unknown; use one of {', '.join(SPACES)}")
        check_batch_size(self.batch_size)
        law = as_law(self.noise, self.sigma)
        if self.masks:
            budget.mask_looks()
        if isinstance(self.target, MeasureTarget):
            shares = [law.probability(radius) for radius in self.target.radii]
            asked = self.target.goals()
            start_interval(budget, shares, self.alpha, [asked.get(name, Goal()) for name in self.target.measurements])
        elif isinstance(self.target, ClassTarget):
            budget.start([self.n0, 0], self.alpha, law.sigma, self.target.bound)

    def _check_resample(self, steps: tuple[float, ...]) -> None:
        if not all(0 < step < math.inf for step in steps):
            raise InputError(f"resample {steps} must hold lengths above 0, in mm, e.g. (1, 1, 1)")
        if self.size is not None or self.space == NATIVE or not self.segments:
            raise InputError(
                "resample is of masks and measurements whose noise is added after it (space input), in place of a size"
            )

    def _check_vary(self) -> None:
        """Settings in their one spelling; InputError where they do not fit what else is asked for."""
        if not self.vary:
            if self.space == SETTINGS:
                raise InputError("space 'settings' needs settings to vary; name them, e.g. window-center=30HU")
            return
        object.__setattr__(self, "vary", spelt(read_vary(self.vary)))
        usual = next(one.default for one in fields(RunSpec) if one.name == "sigma")
        if self.sigma not in (usual, 1.0) or self.denoiser is not None:
            raise InputError(
                "the noise is on settings alone, each with a size of its own, so that sigma is 1 and no denoiser has "
                "work; leave both out"
            )
        object.__setattr__(self, "sigma", 1.0)
        object.__setattr__(self, "space", SETTINGS)

    @property
    def masks(self) -> bool:
        """Whether masks are certified."""
        return bool(getattr(self.target, "taus", ()))

    @property
    def segments(self) -> bool:
        """Whether the model is a segmentation network."""
        return not isinstance(self.target, ClassTarget)

    @property
    def cap(self) -> int:
        """Most estimation samples an image can cost, for each stream of methods."""
        return as_budget(self.budget).cap

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_dict` is the inverse."""
        return {"task": self.target.task, **_plain(asdict(self))}

    @classmethod
    def from_dict(cls, data: object) -> RunSpec:
        """A spec from JSON, YAML or TOML data; what is left out has its default.

        Raises:
            InputError: names the field that is missing, unknown or wrong.
        """
        given = _object(data, "a run")
        task = given.pop("task", ClassTarget.task)
        targets: dict[str, Any] = {kind.task: kind for kind in (ClassTarget, MaskTarget, MeasureTarget)}
        if task not in targets:
            raise InputError(f"task {task!r:.40} is unknown; use one of {', '.join(targets)}")
        parts = {"data": DataSpec, "target": targets[task], "tuning": Tuning, "speed": Acceleration}
        given.setdefault("target", {})
        for name, kind in parts.items():
            if name in given:
                given[name] = _built(kind, given[name], name)
        spec: RunSpec = _built(cls, given, "the run")
        return spec

    def changed(self, **values: Any) -> RunSpec:
        """This spec with other values for some fields."""
        return replace(self, **values)

    def load(self, *, allow_code: bool = False, dataset: Dataset | None = None, model: Any = None) -> Job:
        """Open data and models; refuses what does not fit together.

        Args:
            allow_code: consent to run the code of ``python:`` models.
            dataset: instead of opening ``data``.
            model: instead of loading ``model``: the same one, loaded already, for several runs.
        """
        from certimed.runs.loading import load_job

        return load_job(self, allow_code=allow_code, dataset=dataset, model=model)


def _built(kind: Any, data: object, what: str) -> Any:
    """A frozen dataclass from a mapping, its fields checked against their types."""
    if isinstance(data, kind):
        return data
    given, hints = _object(data, what), get_type_hints(kind)
    known = {one.name for one in fields(kind)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise InputError(f"{what} has no field {unknown[0]!r:.60}; it has {', '.join(sorted(known))}")
    if kind is DataSpec and "reading" in given:
        given["reading"] = _built(ReadOptions, given["reading"], "reading")
    values = {}
    for name, value in given.items():
        try:
            values[name] = _read(value, hints[name])
        except (TypeError, OverflowError) as error:
            raise InputError(f"{name} of {what} cannot be {value!r:.60}: {error}") from error
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{what} has missing fields: {error}") from error


def _read(value: Any, hint: Any) -> Any:
    """A value of JSON as its type wants it: lists become tuples, whole numbers floats; TypeError if it does not fit."""
    parts = get_args(hint)
    if hint is Any:
        return value
    if get_origin(hint) in (Union, UnionType):
        return next(_read(value, one) for one in [*filter(partial(_reads, value), parts), parts[0]])
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or (parts[-1] is not ... and len(parts) != len(value)):
            raise TypeError("a list is wanted" if parts[-1] is ... else f"a list of {len(parts)} is wanted")
        return tuple(_read(one, parts[0]) for one in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise TypeError(f"a value of type {hint.__name__} is wanted")
    if isinstance(value, str) and "\0" in value:
        raise TypeError("no name may have a null character in it")
    return value


def _reads(value: Any, hint: Any) -> bool:
    try:
        _read(value, hint)
    except (TypeError, OverflowError):
        return False
    return True


def _object(data: object, what: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise InputError(f"{what} must be an object with named fields, not {type(data).__name__}")
    return {str(name): value for name, value in data.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
