"""``certimed.calibrate``: score one noisy copy of every calibration image; new images are held against that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from certimed.certificates import END_TO_END, SetClaim
from certimed.certificates.sets import check_radii_of
from certimed.data import Dataset, MedicalImage
from certimed.engine import Engine
from certimed.errors import ImageError, InputError
from certimed.noise import content_id
from certimed.runs.calibration import Calibration, check_pattern, group_digest, group_name, index_of_class
from certimed.runs.job import Job
from certimed.runs.manifest import data_section
from certimed.runs.prepared import Prepared
from certimed.runs.spec import RunSpec
from certimed.runs.targets import ClassTarget
from certimed.statistics import SCORE_NAMES, class_scores, quantile_index, robust_level
from certimed.targets import Sets

PHASE = "calibration"
Watch = Callable[[int, int], None]
"""Called with how many units are done, and of how many."""


@dataclass(frozen=True)
class CalibrationSpec:
    """What is calibrated.

    Attributes:
        run: model, noise and calibration images; its target is of labels, its method one, and its samples are unused.
        radii: L2 norms of attacks to be withstood, rising; 0 among them: no attack. Each gets a threshold of its own.
        alpha: probability with which a set may miss the true class: 1 - coverage.
        score: one of :data:`certimed.statistics.SCORE_NAMES`.
        class_conditional: calibrate within every class, so that alpha holds for each.
        group: a regular expression whose one bracket finds the group (patient, sequence) in an image's id; None: the
            groups that the data names. Where there are groups they are the units: one image of each is drawn.

    Raises:
        InputError: an impossible setting.
    """

    run: RunSpec
    radii: tuple[float, ...]
    alpha: float = 0.1
    score: str = "lac"
    class_conditional: bool = False
    group: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", tuple(float(radius) for radius in self.radii))
        check_radii_of(self.radii, self.radii[-1] if self.radii else 0.0)
        check_pattern(self.group)
        if not isinstance(self.run.target, ClassTarget):
            raise InputError("sets of classes are calibrated on labels; give a request for classes")
        if self.score not in SCORE_NAMES:
            raise InputError(f"score {self.score!r:.40} is unknown; use one of {', '.join(SCORE_NAMES)}")
        if self.run.vary:
            raise InputError("sets are of noise on pixels; leave the settings that are varied out")
        if len(self.run.methods) != 1:
            raise InputError(
                f"methods {', '.join(self.run.methods)}: a calibration is of one; calibrate each by itself"
            )
        for radius in self.radii:
            robust_level(self.alpha, radius, self.run.sigma)


def calibrate(
    spec: CalibrationSpec,
    *,
    allow_code: bool = False,
    dataset: Dataset | None = None,
    job: Job | None = None,
    watch: Watch | None = None,
) -> Calibration:
    """Score the calibration images.

    One noisy copy of each, keyed by the image's content and drawn in a phase of its own, so that no test image ever
    meets its noise. Images that cannot be read are left out, as are second copies of an image; both are decided by the
    image alone, as for a test image, which keeps the others exchangeable. Where there are groups, one readable image of
    each is drawn by the seed: what is proved is about one image drawn of a new group.

    Args:
        spec: what is calibrated.
        allow_code: consent to run the code of a ``python:`` model.
        dataset, job: instead of opening and loading what ``spec.run`` names.
        watch: told how far it is.

    Returns:
        the calibration; :meth:`Calibration.save` writes it.

    Raises:
        InputError: no labels, a method whose answer is tuned on the image, or too few images, with the number that
            would do. ModelError: the model broke its contract.

    >>> calibrate(CalibrationSpec(run, (0.0, 0.25))).save("calibration.json")  # doctest: +SKIP
    """
    work = job or spec.run.load(allow_code=allow_code, dataset=dataset)
    _check_method(work)
    if not work.dataset.is_labelled:
        raise InputError(
            f"calibration needs the true class of every image, and {work.dataset.source} has images without"
        )
    _check_enough(spec, work, [item.label for item in work.dataset.items if item.label is not None], 0.0)
    units, content, groups, left_out = _units(spec, work)
    shapes = [tuple(one.pixels.shape) for _, one in units]
    values = max(torch.Size(shape).numel() for shape in shapes)
    variation = work.engine.law.variation(values)
    labels = tuple(int(image.label) for image, _ in units if image.label is not None)
    _check_enough(spec, work, labels, variation)
    made = []
    for done, (image, prepared) in enumerate(units, 1):
        made.append(_score(spec, work, image, prepared))
        if watch is not None:
            watch(done, len(units))
    return Calibration(
        kind=SetClaim.kind,
        score=spec.score,
        alpha=spec.alpha,
        radii=spec.radii,
        class_conditional=spec.class_conditional,
        labels=labels,
        scores=tuple(made),
        values=values,
        variation=variation,
        content=tuple(sorted(content)),
        group=spec.group,
        groups=tuple(sorted(groups)),
        left_out=left_out,
        run=_about(work),
    )


def _about(work: Job) -> dict[str, Any]:
    """What a manifest says of model and data, without its date; and the noise law."""
    found = work.manifest(data_section(work.dataset))
    told: dict[str, Any] = json.loads(json.dumps({name: one for name, one in found.items() if name != "created"}))
    return {**told, "law": work.engine.law.to_dict()}


def _check_method(work: Job) -> None:
    (method,) = work.engine.methods
    if method.scope != END_TO_END:
        raise InputError(
            f"method {method.name} is tuned on the image that it answers for, so an attack would change it too; sets "
            "need a method that is fixed beforehand, e.g. plain or few-shot"
        )
    if method.views_of is not None:
        raise InputError(f"method {method.name} takes two noisy copies of an image, and sets are of one; use another")


def _check_enough(spec: CalibrationSpec, work: Job, labels: Sequence[int], variation: float) -> None:
    """Refuse too few images before any of them is scored."""
    level = robust_level(spec.alpha, spec.radii[-1], work.engine.law.sigma, variation)
    if not spec.class_conditional:
        quantile_index(max(1, len(labels)), level)
        return
    for label, name in enumerate(work.class_names):
        index_of_class(labels.count(label), level, name)


Unit = tuple[MedicalImage, Prepared]


def _units(spec: CalibrationSpec, work: Job) -> tuple[list[Unit], set[str], set[str], dict[str, int]]:
    """The units, content ids and groups of all readable images, and how many images are no unit, by cause."""
    seed = spec.run.seed
    chosen: dict[str, Unit] = {}
    content: set[str] = set()
    groups: set[str] = set()
    left_out = {"unusable": 0, "second copy": 0, "same group": 0}
    ranked = sorted(range(len(work.dataset)), key=lambda index: _rank(seed, work.dataset.items[index].id))
    for index in ranked:
        item = work.dataset.items[index]
        group = group_digest(group_name(spec.group, item.id, item.group))
        try:
            image = work.dataset.load(index)
            prepared = work.prepare(image)
        except ImageError:
            left_out["unusable"] += 1
            continue
        own = content_id(prepared.pixels)
        if own in content:
            left_out["second copy"] += 1
            continue
        content.add(own)
        if group is not None:
            groups.add(group)
        if (key := group or own) in chosen:
            left_out["same group"] += 1
            continue
        chosen[key] = (image, prepared)
    if not chosen:
        raise InputError(f"no calibration image of {work.dataset.source} can be used")
    if groups and len(chosen) > len(groups):
        raise InputError(f"some images of {work.dataset.source} have a group and some have none; name all, or none")
    return [chosen[key] for key in sorted(chosen)], content, groups, left_out


def _score(spec: CalibrationSpec, work: Job, image: MedicalImage, prepared: Prepared) -> float:
    """Of the true class, on the image's one noisy copy."""
    engine: Engine = work.engine
    target = Sets(len(work.class_names), spec.score, spec.radii, (), "")
    subject = engine.subject(prepared.pixels, content_id(prepared.pixels), spec.run.seed, work.batch_size, target)
    found = engine.counts(subject, target, PHASE, 1)
    assert image.label is not None
    return float(class_scores(found.values[0], spec.score)[image.label])


def _rank(seed: int, item: str) -> bytes:
    return hashlib.sha256(json.dumps(["certimed-calibration", seed, item]).encode()).digest()
