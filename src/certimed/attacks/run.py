"""Attack the certificates of a run, image by image, into its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from certimed.attacks.ascent import Ball
from certimed.attacks.goals import DICE, AnotherClass, AnotherMask, Goal
from certimed.attacks.grid import MOST_AXES
from certimed.attacks.record import Attack, AttackFile, array_digest
from certimed.attacks.sandwich import Sandwich
from certimed.attacks.search import Found, Search
from certimed.attacks.smoothed import Attacked
from certimed.attacks.spec import GRID, AttackSpec
from certimed.certificates import SETTINGS, ClassClaim, IntervalClaim, MaskClaim
from certimed.errors import ImageError, InputError, ModelError
from certimed.integrity import RUN_SCHEMA, digest
from certimed.metrics.segmentation import DICE_LOW
from certimed.runs import CERTIFIED, Job, MaskTarget, MeasureTarget, Record, RunFolder, data_section
from certimed.runs.folder import ATTACKS, MANIFEST, cut_torn_line
from certimed.runs.lock import FolderLock
from certimed.runs.manifest import check_same_run
from certimed.runs.prepared import Prepared
from certimed.settings import read_vary
from certimed.targets import Pixels, Target

if TYPE_CHECKING:
    from certimed.api import Run


class AttackWatcher(Protocol):
    """Told what an attack is doing."""

    def start(self, attacks: int) -> None:
        """So many certificates are to be attacked."""

    def attack(self, attack: Attack) -> None:
        """One is done and on disk."""

    def note(self, sentence: str) -> None:
        """Something a person may want to know."""


class Silent:
    """An :class:`AttackWatcher` that does nothing."""

    def start(self, attacks: int) -> None:
        """See :class:`AttackWatcher`."""

    def attack(self, attack: Attack) -> None:
        """See :class:`AttackWatcher`."""

    def note(self, sentence: str) -> None:
        """See :class:`AttackWatcher`."""


def attack(
    run: Run | RunFolder | str | Path,
    spec: AttackSpec | None = None,
    *,
    methods: Sequence[str] | None = None,
    images: int | None = None,
    allow_code: bool = False,
    job: Job | None = None,
    watcher: AttackWatcher | None = None,
    **settings: Any,
) -> Sandwich:
    """Attack the certificates of a finished run; what is found is in its folder, and is not found twice.

    Each certificate that answers is attacked once with the same settings: first inside its radius, then beyond, then by
    bisection for the smallest perturbation that breaks it (see :class:`AttackSpec`). A stop loses at most the attack in
    flight; the same call goes on. Attacks with other settings are added to those there are.

    Args:
        run: a run, or its folder.
        spec: settings of the attack.
        methods: names of the methods to attack; None: all.
        images: attack so many images only, the same ones whatever was certified first: those whose ids have the
            smallest hashes.
        allow_code: consent to run the code of a ``python:`` model.
        job: the run's request, loaded already.
        watcher: told what happens.
        settings: fields of :class:`AttackSpec`, instead of ``spec``.

    Returns:
        all attacks of the folder, beside their certificates.

    Raises:
        InputError: an impossible setting, no run folder, a model or data set that is not the run's, nothing to attack.

    >>> certimed.attack("runs/demo", images=20, steps=50).to_pandas()  # doctest: +SKIP
    """
    if spec is not None and settings:
        raise InputError(f"give a spec, or {', '.join(settings)}, not both")
    try:
        chosen = spec or AttackSpec(**settings)
    except TypeError as error:
        raise InputError(f"the settings of an attack are not {', '.join(settings)}: {error}") from error
    folder = run if isinstance(run, RunFolder) else RunFolder.open(getattr(getattr(run, "folder", None), "path", run))  # type: ignore[arg-type]
    watch = watcher or Silent()
    work = job or _job(folder, allow_code)
    _check(work, folder, chosen)
    lock = FolderLock(folder.path)
    try:
        torn = cut_torn_line(folder.path / ATTACKS)
        if torn:
            watch.note(f"an unfinished line of {torn} bytes was cut off; its attack is made again")
        file = AttackFile(folder)
        todo = _todo(folder, file, chosen, methods, images)
        watch.start(sum(len(labels) for _, labels in todo))
        for record, labels in todo:
            for found, arrays in _attack_image(work, record, labels, chosen, watch):
                file.append(found, arrays)
                watch.attack(found)
    finally:
        lock.release()
    return Sandwich.of(folder)


def attack_certificate(
    job: Job, record: Record, label: str, spec: AttackSpec, prepared: Prepared
) -> tuple[Attack, dict[str, NDArray[Any]]]:
    """Attack one certificate of a record; the outcome, and its perturbations in the law's units, by name."""
    certificate = record.certificates[label]
    claim, engine = certificate.claim, job.engine
    attacked = attacked_by(job, record.item, certificate.method, spec, prepared)
    ball = Ball(engine.law, prepared.pixels.to(engine.device), clip=spec.clip)
    goals: list[Goal]
    dice: dict[str, tuple[float, ...]] = {}
    if isinstance(claim, ClassClaim):
        goals, reference = [AnotherClass(claim.prediction, certificate.alpha)], claim.prediction
    else:
        assert isinstance(claim, MaskClaim) and isinstance(job.spec.target, MaskTarget | MeasureTarget)
        empty, reference = job.spec.target.empty, int(np.count_nonzero(claim.certified))
        goals = [AnotherMask(claim, prepared.truth, empty)]
        if prepared.truth is not None:
            goals.append(AnotherMask(claim, prepared.truth, empty, DICE))
            dice["guaranteed"] = record.scores[label].per_class[DICE_LOW]
    found = Search(attacked, ball, goals, spec).run(certificate.radius)
    if found.base_dice:
        dice["base"] = found.base_dice
    arrays = _arrays(found, engine.law.levels is not None)
    made = Attack(
        item=record.item,
        method=certificate.method,
        label=label,
        spec=spec,
        radius=certificate.radius,
        alpha=certificate.alpha,
        scope=certificate.about.scope,
        reference=reference,
        trials=tuple(found.trials),
        broken=found.broken,
        base_norm=found.base_norm,
        dice=dice,
        perturbations={name: array_digest(values) for name, values in arrays.items()},
    )
    return made, arrays


def attacked_by(job: Job, item: str, method: str, spec: AttackSpec, prepared: Prepared) -> Attacked:
    """The pipeline of one method at one prepared item, as attacks with these settings meet it."""
    (chosen,) = (one for one in job.engine.methods if one.name == method)
    target: Target[Any] | None = job.target
    assert target is not None  # a run of nothing but measurements was refused
    size = job.batch_size or target.batch_size(prepared.seen, job.engine.device)
    if prepared.settings is not None and isinstance(target, Pixels):
        target = replace(target, space=prepared.seen[1:])
    return Attacked(job.engine_for(prepared), chosen, target, item, job.spec.seed, spec.seed, size)


def judge_again(job: Job, attack: Attack, moved: NDArray[Any]) -> tuple[int, ...]:
    """The counts of the trial that broke a class, drawn again at its stored perturbation.

    Equal to those recorded on the same machine and versions; compare them to see that an attack is what it says.

    Raises:
        InputError: the attack broke nothing, or is on a mask.
    """
    if attack.broken is None or not attack.trials[attack.broken].judged.counts:
        raise InputError(f"the attack on {attack.item!r:.80} broke no class, so that there is nothing to count again")
    judged = attack.trials[attack.broken].judged
    prepared = job.prepare(job.dataset.load(job.dataset.ids.index(attack.item)))
    x = Ball(job.engine.law, prepared.pixels.to(job.engine.device)).moved(torch.from_numpy(moved)).pixels
    attacked = attacked_by(job, attack.item, attack.method, attack.spec, prepared)
    tally = attacked.target.select(tuple(x.shape), x.device, attack.spec.n)
    counts = attacked.count(x, judged.start, attack.spec.n, tally)
    return tuple(int(count) for count in counts)


def _job(folder: RunFolder, allow_code: bool) -> Job:
    from certimed.runs import RunSpec

    job = RunSpec.from_dict(folder.manifest.get("request")).load(allow_code=allow_code)
    recorded = folder.manifest.get("local", {}).get("batch_size")
    if isinstance(recorded, int):
        job.use_batch_size(recorded)
    return job


def _check(job: Job, folder: RunFolder, spec: AttackSpec) -> None:
    """Refuse what no attack is for, and another model or data set than the run's."""
    if job.target is None:
        raise InputError(
            f"{folder.path} certifies measurements alone, and attacks are on classes and masks; add --tau to the run"
        )
    settings = job.spec.space == SETTINGS
    if spec.clip and settings:
        raise InputError("clip keeps pixels in [0, 1], and this run's noise is on settings; leave it out")
    if spec.search == GRID and not (settings and len(read_vary(job.spec.vary)) <= MOST_AXES):
        raise InputError(f"a grid is for runs that vary at most {MOST_AXES} settings; search by gradient")
    manifest = job.manifest(data_section(job.dataset, folder.manifest.get("data")))
    check_same_run(folder.path / MANIFEST, folder.manifest, {"schema": RUN_SCHEMA, **manifest})


def _todo(
    folder: RunFolder, file: AttackFile, spec: AttackSpec, methods: Sequence[str] | None, images: int | None
) -> list[tuple[Record, list[str]]]:
    known = [one["name"] for one in folder.methods]
    unknown = [name for name in methods or () if name not in known]
    if unknown:
        raise InputError(f"method {unknown[0]} is none of this run, which has {', '.join(known)}")
    if images is not None and images < 1:
        raise InputError(f"images={images} leaves nothing to attack; use 1 or more")
    records = sorted((one for one in folder.records() if one.status == CERTIFIED), key=lambda one: _rank(one.item))
    done, own = {one.key for one in file.attacks()}, digest(spec.to_dict())
    todo = []
    for record in records[:images]:
        labels = [
            label
            for label, one in record.certificates.items()
            if not (one.abstained or isinstance(one.claim, IntervalClaim))
            and one.method in (methods or known)
            and (own, record.item, label) not in done
        ]
        if labels:
            todo.append((record, labels))
    if not records:
        raise InputError(f"{folder.path} holds no certificate yet; certify first")
    return todo


def _attack_image(
    job: Job, record: Record, labels: Sequence[str], spec: AttackSpec, watch: AttackWatcher
) -> Iterator[tuple[Attack, dict[str, NDArray[Any]]]]:
    try:
        prepared = job.prepare(job.dataset.load(job.dataset.ids.index(record.item)))
        for label in labels:
            yield attack_certificate(job, record, label, spec, prepared)
    except (ImageError, ModelError) as error:
        watch.note(f"{record.item} was not attacked: {error}")


def _arrays(found: Found, whole: bool) -> dict[str, NDArray[Any]]:
    kind = np.int32 if whole else np.float64
    return {name: one.moved.numpy().astype(kind) for name, one in found.kept.items()}


def _rank(item: str) -> str:
    return hashlib.sha256(json.dumps(["certimed-attack-images", item]).encode()).hexdigest()
