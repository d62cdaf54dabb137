"""The machine-readable statement of a pack: what was tested, how, by which version, with which result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from certimed import __version__
from certimed.attacks import Sandwich
from certimed.certificates import NATIVE
from certimed.errors import InputError
from certimed.exports.summary import summary
from certimed.integrity import digest
from certimed.report.html.words import limits
from certimed.report.sentences import clumps, in_short
from certimed.report.series import Series, by_kind, series_of
from certimed.runs import RunFolder, RunSpec

STATEMENT_SCHEMA = "certimed/statement/1"


@dataclass(frozen=True)
class Subject:
    """One run of a pack, read.

    Attributes:
        name: of its folder in the pack.
        folder: the run.
        spec: its request.
        series: its certificates, one series a label.
    """

    name: str
    folder: RunFolder
    spec: RunSpec
    series: tuple[Series[Any], ...]

    @classmethod
    def of(cls, name: str, folder: RunFolder) -> Subject:
        """Read a run; InputError where nothing of it is certified."""
        found = series_of(name, folder)
        if not found:
            raise InputError(f"{folder.path} has no certificate: no image was finished, or every one failed")
        return cls(name, folder, RunSpec.from_dict(folder.manifest.get("request")), tuple(found))

    @property
    def kinds(self) -> list[list[Series[Any]]]:
        """Its series of one kind of certificates each."""
        return by_kind(self.series)


def statement(subjects: Sequence[Subject]) -> dict[str, Any]:
    """What a pack states, in plain JSON types: a function of the runs and of the version, of nothing else.

    Returns:
        ``schema``, ``certimed`` (the version), ``identification`` (digest of what identifies the runs), ``runs`` and
        ``limits``. Of each run: what was tested (``model``, ``methods``, ``classes``, ``data``), how (``request``), by
        which version (``environment``), the result in a sentence of each kind (``sentences``) and in numbers
        (``summary``, see :func:`certimed.exports.summary.summary`), ``attacks``, ``failed`` images, ``deviations`` and
        ``not_established``.
    """
    runs = [_run(subject) for subject in subjects]
    comparable = len({(one.space, one.first.shape) for subject in subjects for one in subject.series}) == 1
    first = [one.first for subject in subjects for one in subject.series]
    return {
        "schema": STATEMENT_SCHEMA,
        "certimed": __version__,
        "identification": digest([[run["name"], run["summary"]["digest"]] for run in runs]),
        "runs": runs,
        "limits": [list(point) for point in limits(first, comparable=comparable)],
    }


def _run(subject: Subject) -> dict[str, Any]:
    manifest = subject.folder.manifest
    data = manifest.get("data") or {}
    failed = [[record.item, record.reason or "no reason given"] for record in subject.series[0].failures]
    attacked = _attacks(subject.folder)
    said = [in_short(own) for own in subject.kinds]
    found = summary(subject.folder)
    return {
        "name": subject.name,
        "created": manifest.get("created"),
        "model": manifest.get("model"),
        "methods": subject.folder.methods,
        "classes": list(subject.folder.classes),
        "data": {name: data.get(name) for name in ("images", "identity", "ids_sha256", "reading")},
        "shard": manifest.get("shard"),
        "request": manifest.get("request"),
        "environment": manifest.get("provenance"),
        "sentences": [{"text": one.text, "alarm": one.alarm} for one in said],
        "summary": found,
        "failed": failed,
        "attacks": attacked,
        "deviations": _deviations(subject, found, len(failed)),
        "not_established": _not_established(subject, attacked),
    }


def _attacks(folder: RunFolder) -> dict[str, Any] | None:
    """Both sides of every attacked certificate; None where none was attacked. Infinite quartiles are null."""
    sandwich = Sandwich.of(folder)
    if not sandwich.attacks:
        return None
    rows = [{name: _finite(value) for name, value in row.items()} for row in sandwich.summary()]
    return {"summary": rows, "findings": list(sandwich.findings()), "images": sandwich.rows()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _deviations(subject: Subject, found: Mapping[str, Any], failed: int) -> list[str]:
    """What did not go as asked, in sentences."""
    deviations = []
    if failed:
        deviations.append(f"{failed} of {subject.series[0].images} images failed; they count as not certified.")
    if not found["complete"]:
        deviations.append(
            f"The run is not complete: {found['certified'] + failed} of {found['images']} images were done."
        )
    if subject.folder.shard is not None:
        deviations.append("The run is one shard of a larger one; the other images are not in this pack.")
    deviations += [f"{warning}." for warning in subject.series[0].intensities.warnings]
    return deviations + clumps(subject.series)


def _not_established(subject: Subject, attacked: Mapping[str, Any] | None) -> list[list[str]]:
    """What a reader might take for established and is not: (question, why not)."""
    first = subject.series[0]
    found = [
        ["Is an answer right?", "A certificate says that an answer does not change, not that it is right."],
        ["Does it hold for other patients, scanners or sites?", "It is about the images listed, each by itself."],
        ["Does it hold for the model without smoothing?", "It is about the majority over noisy copies."],
        ["Turned, moved, cropped or rescaled images?", "Only changes of pixel values below the radius are covered."],
        ["Were seed, data and budget fixed beforehand?", "No file can show it; the laboratory states it."],
        ["Are the counts those of this model?", "Recomputed from counts; certify --resample draws them again."],
    ]
    if attacked is None:
        found.append(
            ["How near are the radii to the truth?", "No attack was made: certimed attack shows the other side."]
        )
    if any(one.marks for one in subject.series):
        found.append(
            ["The pipeline that tunes or chooses at the image?", "Methods marked * or † are proved with it held fixed."]
        )
    if first.space != NATIVE and any(c.native is None for c in [one.first for one in subject.series]):
        found.append(["The radius for the original files?", "How the model prepares an image is not known as a map."])
    if first.labels is None and not any(one.scores for one in subject.series):
        found.append(["Accuracy or Dice?", "The run has no labels and no true masks."])
    return found
