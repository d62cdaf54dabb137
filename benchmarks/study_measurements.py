"""Certified measurements on real images: how narrow intervals are beside what pixels alone prove.

    python -m benchmarks.study_measurements --set jsrt4 --data ../shared/data --models studies
    python -m benchmarks.study_measurements --report docs/results.md

Masks and measurements are certified from the same noisy copies, at the same n, alpha and radius. What pixels alone
prove of an area: certified pixels of the class are in it, abstained ones may be. Networks and denoisers are those of
``python -m training.study_segmentation``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.home import Places, numbers, replace_section, report_command, table
from benchmarks.study_segmentation import Setting, method_results
from benchmarks.study_segmentation import request as mask_request
from certimed.certificates import MaskCertificate
from certimed.engine import DENOISED, PLAIN
from certimed.errors import InputError
from certimed.report.series import Series
from certimed.runs import MeasureTarget
from certimed.statistics import radius_from_lower
from certimed.studies import Study, run_study
from training.study_segmentation import load_set

MARKER = "measurements"
TAU = 0.75


@dataclass(frozen=True)
class Measured:
    """What is measured on one set.

    Attributes:
        title: of its part of the report.
        names: spellings of the measurements.
        thresholds: what is asked of them.
        spacing: millimetres from pixel to pixel, where the source says it.
    """

    title: str
    names: tuple[str, ...]
    thresholds: tuple[str, ...] = ()
    spacing: tuple[float, float] | None = None


# JSRT was digitised at .175 mm in 2048 x 2048 pixels; here it is 128 x 128.
SETS = {
    "jsrt4": Measured(
        "JSRT: cardiothoracic ratio and areas",
        ("ctr", "area:right lung", "area:left lung", "area:heart"),
        ("ctr=0.5",),
        (2.8, 2.8),
    ),
    "isic": Measured("ISIC 2017: lesion area and count", ("area:lesion", "count:lesion"), ("count:lesion=1.5",)),
    "cvc": Measured("CVC-ClinicDB: polyp area and count", ("area:polyp", "count:polyp"), ("count:polyp=1.5",)),
}


def certify(given: argparse.Namespace, places: Places) -> tuple[str, dict[str, Any]]:
    """Certify one set at every sigma; a stopped run goes on where it was."""
    what, study_set = SETS[given.name], load_set(given.name, places.data)
    methods = tuple(given.methods.split(","))
    setting = Setting(given.name, images=given.images, seed=given.seed, sigmas=given.sigma, methods=methods)
    spec = mask_request(setting, places, study_set).changed(noise="grid")
    specs = {}
    for sigma in setting.sigmas:
        target = MeasureTarget(
            what.names,
            (float(radius_from_lower(TAU, sigma)),),
            what.thresholds,
            spacing=what.spacing,
            taus=(TAU,),
        )
        specs[f"sigma-{sigma:g}"] = spec.changed(sigma=sigma, target=target)
    study = run_study(specs, places.models / "measurements" / given.name)
    found = {
        "set": given.name,
        "images": setting.images,
        "n": setting.n,
        "alpha": setting.alpha,
        "seed": setting.seed,
        "sigmas": {f"{sigma:g}": outcome(study, sigma, study_set.class_names) for sigma in setting.sigmas},
    }
    return f"measurements_{given.name}", found


def outcome(study: Study, sigma: float, names: tuple[str, ...]) -> dict[str, Any]:
    """What masks and measurements of one sigma amount to, by method: scores, the share certified, and intervals."""
    mine = [one for one in study.series if one.sigma == sigma]
    found: dict[str, Any] = {}
    for masks in (one for one in mine if one.masks):
        front, certified = masks.tally.foreground
        intervals = next(one for one in mine if one.measured and one.method == masks.method)
        found[masks.method] = {
            **method_results(masks, names),
            "answered foreground certified": certified / front if front else None,
            "measurements": _measurements(intervals, masks, names),
        }
    return {"radius": float(radius_from_lower(TAU, sigma)), "methods": found}


def _measurements(intervals: Series[Any], masks: Series[Any], names: tuple[str, ...]) -> dict[str, Any]:
    """For each measurement: medians over images of the value, the width, and the width that pixels alone prove."""
    by_pixels = [_pixel_widths(one) for one in masks.certificates]
    found: dict[str, Any] = {}
    for place, named in enumerate(intervals.first.claim.intervals):
        own = [one.claim.intervals[place] for one in intervals.certificates]
        widths = [one.upper[0] - one.lower[0] for one in own]
        kind, _, classes = named.name.partition(":")
        pixels = None
        if kind == "area":
            scale = _pixel_size(named.unit, intervals)
            pixels = [one[names.index(classes)] * scale for one in by_pixels]
        sides = [one.place(0) for one in own]
        values = [one.median for one in own if one.median is not None]
        found[named.name] = {
            "unit": named.unit,
            "median": median(values) if values else None,
            "width": [float(np.quantile(widths, share, method="higher")) for share in (0.25, 0.5, 0.75)],
            "pixel width": None if pixels is None else median(pixels),
            "below": sides.count("below") / intervals.images,
            "above": sides.count("above") / intervals.images,
            "threshold": named.threshold,
        }
    return found


def _pixel_widths(mask: MaskCertificate) -> list[int]:
    """By how many pixels each class could grow: every abstained one."""
    abstained = int(np.count_nonzero(~mask.certified))
    return [abstained] * mask.claim.num_classes


def _pixel_size(unit: str, intervals: Series[Any]) -> float:
    """Area of one pixel in the unit of the measurement."""
    spacing = intervals.spec.target.spacing
    return float(np.prod(spacing)) / 100 if unit == "cm2" and spacing is not None else 1.0


_INTRODUCTION = """## Certified measurements

The networks and denoisers of the study above; masks and measurements from the same {n} noisy copies, alpha =
{alpha:g} each, radius = .674 sigma. *width* is the median (quartiles) over images of the certified interval of the
median under noise. *pixels* is the width that the certified mask alone proves for the same area at the same n, alpha
and radius: every abstained pixel may or may not belong to the class. *below* and *above*: share of all images proved
to lie on that side of the threshold. The threshold and the measurements were fixed beforehand.

Made with `python -m benchmarks.study_measurements --set jsrt4|isic|cvc`, then `--report`.
"""


def write_section(path: Path, studies: list[dict[str, Any]]) -> None:
    """Replace the section of measurements."""
    if not studies:
        raise InputError("there are no results to report; run a set first, e.g. --set jsrt4")
    parts = [_INTRODUCTION.format(**studies[0])]
    for study in studies:
        parts.append(f"### {SETS[study['set']].title}\n\n{study['images']} test images, seed {study['seed']}.\n")
        rows = []
        for sigma, found in study["sigmas"].items():
            for method, row in found["methods"].items():
                for name, one in row["measurements"].items():
                    rows.append([sigma, f"{found['radius']:.3f}", method, name, *cells(one)])
        head = ["sigma", "radius", "method", "measurement", "median", "width", "pixels", "narrower", "below", "above"]
        parts.append(table(head, rows))
    replace_section(path, MARKER, "\n".join(parts))


def cells(one: dict[str, Any]) -> list[str]:
    """The columns of one measurement: median, width, width by pixels, how much narrower, shares below and above."""
    low, middle, high = one["width"]
    unit = f" {one['unit']}" if one["unit"] else ""
    value = "-" if one["median"] is None else f"{_short(one['median'])}{unit}"
    pixels, ratio = "-", "-"
    if one["pixel width"] is not None:
        pixels, ratio = _short(one["pixel width"]), f"{one['pixel width'] / middle:.0f}x" if middle else "-"
    sides = ["-", "-"]
    if one["threshold"] is not None:
        sides = [f"{100 * one[side]:.0f} % ({one['threshold']:g})" for side in ("below", "above")]
    return [value, f"{_short(middle)} ({_short(low)} to {_short(high)})", pixels, ratio, *sides]


def _short(number: float) -> str:
    """Three digits, whole from 100 on."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--sigma", type=numbers, default=(0.25, 0.5, 1.0))
    parser.add_argument("--methods", default=f"{PLAIN},{DENOISED}")


if __name__ == "__main__":
    report_command(__doc__, [*SETS], _options, certify, write_section, "measurements_{}.json")
