"""``summary.json``: what a run amounts to, for programs and for people who read no certificates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from certimed.certificates import (
    TOO_FEW_SAMPLES,
    UNSTABLE,
    ClassCertificate,
    ClassClaim,
    IntervalCertificate,
    IntervalClaim,
    MaskCertificate,
    MaskClaim,
    SetCertificate,
    SetClaim,
)
from certimed.integrity import write_whole
from certimed.metrics import MaskScores, summarise, summarise_masks
from certimed.metrics.measured import interval_rows
from certimed.metrics.sets import set_rows
from certimed.runs import CERTIFIED, FAILED, Record, RunFolder

SUMMARY = "summary.json"
SUMMARY_SCHEMA = "certimed/summary/1"


def summary(folder: RunFolder, *, confidence: float = 0.95) -> dict[str, Any]:
    """What became of a run, in plain JSON types.

    Args:
        folder: the run.
        confidence: of all intervals over the population the images were drawn from.

    Returns:
        ``task``, ``images`` (of the run or shard), ``certified``, ``failed``, ``complete``, ``digest`` and, by
        certificate label, ``results``. Of labels: clean and certified accuracy with intervals, abstentions, mean
        samples; failed images count as not certified and as wrong. Of masks: share certified, radius, and where there
        are true masks Dice, IoU and accuracy with intervals, of certified images. Of measurements: see
        :func:`certimed.metrics.measured.interval_rows`; of sets: :func:`certimed.metrics.sets.set_rows`.

    Raises:
        InputError: names the first broken line.
    """
    found: dict[str, _Classes | _Masks | _Intervals | _Sets] = {}
    certified = failed = 0
    for record in folder.records():
        certified += record.status == CERTIFIED
        failed += record.status == FAILED
        for label, one in record.certificates.items():
            if label not in found:
                found[label] = _COLLECTORS[one.claim.kind](one)
            found[label].add(record, one)
    section = folder.manifest.get("shard") or folder.manifest.get("data") or {}
    images = section.get("images") if isinstance(section, dict) else None
    return {
        "schema": SUMMARY_SCHEMA,
        "task": folder.task,
        "images": images,
        "certified": certified,
        "failed": failed,
        "complete": images == certified + failed,
        "digest": folder.digest(),
        "confidence": confidence,
        "results": {label: one.summary(folder.classes, failed, confidence) for label, one in found.items()},
    }


def write_summary(folder: RunFolder, exit_status: int) -> dict[str, Any]:
    """Write :func:`summary` and the exit status of the command into the run folder; returns what was written.

    Raises:
        InputError: a broken line, or the folder cannot be written.
    """
    found = {**summary(folder), "exit_status": exit_status}
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    write_whole(folder.path / SUMMARY, lambda stream: stream.write(text))
    return found


class _Classes:
    """Certificates of one method."""

    def __init__(self, first: ClassCertificate) -> None:
        self.first = first
        self.certificates: list[ClassCertificate] = []
        self.truth: list[int] = []
        self.clean: list[int] = []

    def add(self, record: Record, certificate: Any) -> None:
        self.certificates.append(certificate)
        self.truth += [] if record.label is None else [record.label]
        self.clean += [record.clean[certificate.method]] if certificate.method in record.clean else []

    def summary(self, classes: Sequence[str], failed: int, confidence: float) -> dict[str, Any]:
        count = len(self.certificates)
        found = summarise(
            self.certificates,
            self.truth if len(self.truth) == count else None,
            self.clean if len(self.clean) == count else None,
            failed=failed,
            confidence=confidence,
        )
        names = ("radius", "certified_accuracy", "low", "high", "certified_share")
        return {
            "sigma": self.first.sigma,
            "alpha": self.first.alpha,
            "clean_accuracy": found.clean_accuracy,
            "at_radius": [{name: row[name] for name in names} for row in found.to_rows()],
            "abstained": {TOO_FEW_SAMPLES: found.too_few_samples, UNSTABLE: found.unstable},
            "mean_samples": found.mean_samples,
        }


class _Masks:
    """Certificates of one method at one tau; their arrays are not kept."""

    def __init__(self, first: MaskCertificate) -> None:
        self.about = {"sigma": first.sigma, "alpha": first.alpha, "tau": first.tau, "radius": first.radius}
        self.shares: list[float] = []
        self.samples: list[int] = []
        self.scores: list[MaskScores] = []
        self.groups: list[str] = []

    def add(self, record: Record, certificate: Any) -> None:
        self.shares.append(certificate.share_certified)
        self.samples.append(certificate.n)
        self.scores += [record.scores[certificate.label]] if certificate.label in record.scores else []
        self.groups += [] if record.group is None else [record.group]

    def summary(self, classes: Sequence[str], failed: int, confidence: float) -> dict[str, Any]:
        count, rows = len(self.shares), []
        if len(self.scores) == count:
            groups = self.groups if len(self.groups) == count else None
            found = summarise_masks(self.scores, groups=groups, class_names=classes, confidence=confidence)
            names = ("class", "metric", "mean", "low", "high", "lower")
            rows = [{name: row[name] for name in names} for row in found.to_rows()]
        return {
            **self.about,
            "share_certified": sum(self.shares) / count,
            "mean_samples": sum(self.samples) / count,
            "scores": rows,
        }


class _Intervals:
    """Certificates of the measurements of one method."""

    def __init__(self, first: IntervalCertificate) -> None:
        self.certificates: list[IntervalCertificate] = []

    def add(self, record: Record, certificate: Any) -> None:
        self.certificates.append(certificate)

    def summary(self, classes: Sequence[str], failed: int, confidence: float) -> dict[str, Any]:
        first, samples = self.certificates[0], [one.n for one in self.certificates]
        return {
            "sigma": first.sigma,
            "alpha": first.alpha,
            "intervals": interval_rows(self.certificates),
            "mean_samples": sum(samples) / len(samples),
        }


class _Sets:
    """Certificates of the sets of one method."""

    def __init__(self, first: SetCertificate) -> None:
        self.certificates: list[SetCertificate] = []
        self.truth: list[int] = []

    def add(self, record: Record, certificate: Any) -> None:
        self.certificates.append(certificate)
        self.truth += [] if record.label is None else [record.label]

    def summary(self, classes: Sequence[str], failed: int, confidence: float) -> dict[str, Any]:
        first, labels = self.certificates[0], self.truth if len(self.truth) == len(self.certificates) else None
        return {
            "sigma": first.sigma,
            "alpha": first.alpha,
            "score": first.claim.score,
            "calibration": first.claim.calibration,
            "sets": set_rows(self.certificates, labels, confidence),
        }


_COLLECTORS: dict[str, Any] = {
    ClassClaim.kind: _Classes,
    MaskClaim.kind: _Masks,
    IntervalClaim.kind: _Intervals,
    SetClaim.kind: _Sets,
}
