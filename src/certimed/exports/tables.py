"""A run as a table: CSV, Parquet, pandas, and the log that existing analysis scripts of the field read."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from certimed.certificates import AnyCertificate, IntervalCertificate, MaskCertificate, shown
from certimed.errors import InputError, require
from certimed.integrity import write_whole
from certimed.metrics.segmentation import (
    DICE_HIGH,
    DICE_LOW,
    DICE_PUBLISHED,
    FOREGROUND,
    IOU_HIGH,
    IOU_LOW,
    MaskScores,
    score_columns,
)
from certimed.runs import FAILED, Record, RunFolder
from certimed.settings import read_vary

if TYPE_CHECKING:
    import pandas

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_ALL = ("item", "method", "status", "reason")
_SAMPLES = ("n0", "n", "budget", "looks", "stop", "alpha", "sigma", "noise", "scope", "space", "native_radius")
_SCORES = {
    "guaranteed_dice": DICE_LOW, "best_case_dice": DICE_HIGH, "published_dice": DICE_PUBLISHED,
    "guaranteed_iou": IOU_LOW, "best_case_iou": IOU_HIGH, "clean_dice": "Dice (clean)", "noisy_dice": "Dice (noisy)",
}  # fmt: skip
"""Columns of masks with a truth: means over the classes but the first."""
CLASS_COLUMNS = (
    *_ALL, "label", "label_name", "prediction", "prediction_name", "abstained", "correct", "radius", "p_lower",
    "q_upper", "top_count", "bound", *_SAMPLES, "clean", "counts", "proved_at", "seconds",
)  # fmt: skip
MASK_COLUMNS = (
    *_ALL, "group", "share_certified", "radius", "tau", "threshold", "pixels", "num_classes", "correction", *_SAMPLES,
    *_SCORES, "scores", "seconds",
)  # fmt: skip

INTERVAL_COLUMNS = (
    *_ALL, "group", "measurement", "unit", "radius", "lower", "upper", "median", "undefined", "asked", "side",
    *_SAMPLES, "seconds",
)  # fmt: skip
_COLUMNS = {"classes": CLASS_COLUMNS, "mask": MASK_COLUMNS, "interval": INTERVAL_COLUMNS}


def columns(folder: RunFolder) -> tuple[str, ...]:
    """Names of the columns of a run's table; where a run of measurements has masks too, theirs stand behind.

    Of a run in the space of settings, each has two more: its own value, and how far it alone may be from it.

    Raises:
        InputError: a manifest of another kind of run.
    """
    if folder.task not in _COLUMNS:
        raise InputError(f"{folder.path} is a run of {folder.task!r:.40}, which has no table; restore its run.json")
    own = _COLUMNS[folder.task]
    target = folder.manifest["request"].get("target")
    both = folder.task == "interval" and isinstance(target, dict) and target.get("taus")
    names = (*own, *(name for name in MASK_COLUMNS if name not in own)) if both else own
    vary = folder.manifest["request"].get("vary") or ()
    varied = [axis.name for axis in read_vary(vary)] if vary else []
    return (*names, *(f"{part} {name}" for name in varied for part in ("at", "reach")))


def rows(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """One row for each image and certificate, of measurements one for each of them and radius (failed images: one row,
    method None), in the order written.

    Raises:
        InputError: names the first broken line.
    """
    names = columns(folder)
    for record in folder.records():
        for certificate in record.certificates.values() or (None,):
            row = _row(record, certificate, folder.classes)
            for more in _interval_rows(certificate) if isinstance(certificate, IntervalCertificate) else ({},):
                yield {name: _plain((row | more).get(name)) for name in names}


def to_pandas(folder: RunFolder) -> pandas.DataFrame:
    """All rows as a data frame; MissingExtraError without the ``export`` extra."""
    frame: pandas.DataFrame = require("pandas", "export").DataFrame(list(rows(folder)), columns=list(columns(folder)))
    return frame


def write_csv(folder: RunFolder, path: str | Path) -> int:
    """Write CSV with a header; returns the number of rows.

    Text that a spreadsheet would take for a formula is prefixed by an apostrophe.
    """

    def write(stream: IO[str]) -> int:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns(folder))
        count = 0
        for row in rows(folder):
            writer.writerow([_cell(value) for value in row.values()])
            count += 1
        return count

    return write_whole(Path(path), write)


def write_parquet(folder: RunFolder, path: str | Path) -> int:
    """Write Parquet; returns the number of rows. MissingExtraError without the ``export`` extra."""
    require("pyarrow", "export")
    frame, target = to_pandas(folder), Path(path)
    try:
        frame.to_parquet(target, index=False)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror})") from error
    return len(frame)


def write_cohen(folder: RunFolder, path: str | Path, method: str | None = None) -> int:
    """Write the tab-separated log of Cohen et al. (ICML 2019): idx, label, predict, radius, correct, time.

    In this format alone an abstention is class -1. Failed and unlabelled images have no place in it and are left
    out; idx is the position among all images of the run, so a gap shows where one is missing.

    Args:
        method: which method; may be left out where the run has one.

    Raises:
        InputError: a run of masks, or a method that is not in the run.
    """
    if folder.task != "classes":
        raise InputError(f"{folder.path} is a run of masks; the cohen format is for classes")
    known = [entry["name"] for entry in folder.methods]
    chosen = known[0] if method is None and len(known) == 1 else method
    if chosen not in known:
        raise InputError(f"method {method} must be one of {', '.join(known)}")
    positions = {_plain(item): index for index, item in enumerate(folder.status())}

    def write(stream: IO[str]) -> int:
        stream.write("idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
        count = 0
        for row in rows(folder):
            if row["method"] != chosen or row["label"] is None:
                continue
            answer = -1 if row["abstained"] else row["prediction"]
            spent = row["seconds"] or 0.0
            clock = f"{int(spent // 3600)}:{int(spent // 60 % 60):02d}:{spent % 60:09.6f}"
            stream.write(
                f"{positions[row['item']]}\t{row['label']}\t{answer}\t{shown(row['radius'], 'lower', places=7)}\t"
                f"{int(answer == row['label'])}\t{clock}\n"
            )
            count += 1
        return count

    return write_whole(Path(path), write)


def _interval_rows(certificate: IntervalCertificate) -> Iterator[dict[str, Any]]:
    """What tells the rows of one certificate apart; an infinite end is None."""
    for one in certificate.claim.intervals:
        for index, radius in enumerate(certificate.radii):
            lower, upper = one.lower[index], one.upper[index]
            yield {
                "measurement": one.name,
                "unit": one.unit,
                "radius": radius,
                "native_radius": certificate.native_radius_at(radius),
                "lower": None if math.isinf(lower) else lower,
                "upper": None if math.isinf(upper) else upper,
                "median": one.median,
                "undefined": one.undefined,
                "asked": one.threshold,
                "side": one.place(index),
            }


def _row(record: Record, certificate: AnyCertificate | None, classes: tuple[str, ...]) -> dict[str, Any]:
    def name(index: int | None) -> str | None:
        return classes[index] if index is not None and 0 <= index < len(classes) else None

    row: dict[str, Any] = {"item": record.item, "status": record.status, "reason": record.reason}
    row |= {"label": record.label, "label_name": name(record.label), "group": record.group, "seconds": record.seconds}
    if certificate is None:
        return row | ({} if record.status != FAILED else {"method": None})
    c = certificate
    row |= {
        "method": c.method,
        "radius": c.radius,
        "n0": c.n0,
        "n": c.n,
        "budget": c.budget,
        "looks": len(c.samples.looks),
        "proved_at": c.samples.proved_at,
        "stop": c.stop.kind,
        "alpha": c.alpha,
        "sigma": c.sigma,
        "noise": c.law.name,
        "scope": c.scope,
        "space": c.space,
        "native_radius": c.native_radius,
    }
    for axis in () if c.about.settings is None else c.about.settings.axes:
        row |= {f"at {axis.name}": axis.at, f"reach {axis.name}": axis.reach(c.real_radius)}
    if isinstance(c, MaskCertificate):
        return row | {
            "share_certified": c.share_certified,
            "tau": c.tau,
            "threshold": c.threshold,
            "pixels": math.prod(c.about.answered[1:]),
            "num_classes": c.num_classes,
            "correction": c.correction,
            **_scores(record.scores.get(c.label)),
        }
    if isinstance(c, IntervalCertificate):
        return row
    right = None if record.label is None else bool(not c.abstained and c.prediction == record.label)
    return row | {
        "prediction": c.prediction,
        "prediction_name": name(c.prediction),
        "abstained": c.abstained,
        "correct": right,
        "p_lower": c.p_lower,
        "q_upper": c.q_upper,
        "top_count": c.counts[c.prediction],
        "bound": c.bound,
        "clean": record.clean.get(c.method),
        "counts": json.dumps(list(c.counts)),
    }


def _scores(scores: MaskScores | None) -> dict[str, Any]:
    """Means over the classes but the first, and every score of every class as JSON."""
    if scores is None or DICE_LOW not in scores.per_class:
        return {}
    found = score_columns([scores], [str(index) for index in range(len(scores.per_class[DICE_LOW]))])
    means = {
        name: float(found[FOREGROUND, metric][0]) for name, metric in _SCORES.items() if metric in scores.per_class
    }
    told = {name: None if math.isnan(value) else value for name, value in means.items()}
    return {**told, "scores": json.dumps({**scores.to_dict()["per_class"], **scores.whole})}


def _plain(value: Any) -> Any:
    """Text that every format can hold: file names may carry bytes that are no UTF-8."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _cell(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value
