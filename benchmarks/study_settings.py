"""Certificates in the space of settings, with attacks beside them: what a window, an exposure or a viewport may do.

    python -m benchmarks.study_settings --set demo
    python -m benchmarks.study_settings --set jsrt4 --data ../shared/data --models studies
    python -m benchmarks.study_settings --report docs/results.md

The first two certify and attack, each row of a set into a run folder; a stopped run goes on where it was. The last
writes the section of the report anew from the results there are. The network of jsrt4: ``python -m
training.study_segmentation --set jsrt4 --part unet``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.home import Places, replace_section, report_command
from certimed import attack
from certimed.assets import asset, demo_prompts
from certimed.attacks import AttackSpec
from certimed.certificates import shown
from certimed.certificates.words import noise_text
from certimed.errors import InputError
from certimed.runs import ClassTarget, DataSpec, MaskTarget, Record, RunFolder, RunSpec, execute
from training.study_segmentation import FILES, load_set

MARKER = "settings"


@dataclass(frozen=True)
class Set:
    """What is certified and attacked.

    Attributes:
        title: heading.
        vary: rows of the table: settings and their noise.
        images, attacked: how many.
        n: noisy settings of each image.
        attack: how it is attacked.
    """

    title: str
    vary: tuple[tuple[str, ...], ...]
    images: int
    attacked: int
    n: int
    attack: AttackSpec


SETS = {
    "demo": Set(
        "Demo CLIP: brain MRI slices, other windows",
        (
            ("window-center=26grey", "window-width=0.2"),
            ("window-center=51grey", "window-width=0.4"),
            ("gain=0.2", "gamma=0.2"),
            ("crop=8px", "rotation=5deg"),
        ),
        images=22,
        attacked=4,
        n=300,
        attack=AttackSpec(copies=8, bisections=3, steps=8, n=400),
    ),
    "jsrt4": Set(
        "JSRT: chest radiographs, right lung, left lung, heart; other exposures",
        (("gain=0.2", "offset=0.1"),),
        images=8,
        attacked=2,
        n=100,
        attack=AttackSpec(copies=6, bisections=1, steps=4, n=100),
    ),
}


def request(name: str, setting: Set, vary: tuple[str, ...], places: Places) -> RunSpec:
    """The run of one row."""
    if name == "demo":
        entries = tuple(f"{slug}={text}" for slug, text in demo_prompts()["classes"].items())
        data = DataSpec(str(asset("demo_images")), entries, limit=setting.images)
        return RunSpec("demo", data, ClassTarget(), vary=vary, budget=setting.n, n0=50)
    network, study_set = places.models / f"unet_{name}", load_set(name, places.data)
    if not network.exists():
        raise InputError(f"{network} is missing; train it with: python -m training.study_segmentation --set {name}")
    data = DataSpec(str(places.data / FILES[name]), study_set.class_names, masks="masks_multi")
    test, ids = np.flatnonzero(study_set.test), data.open().ids
    chosen = test[np.linspace(0, len(test) - 1, setting.images).astype(int)]
    data = DataSpec(data.path, data.classes, masks=data.masks, items=tuple(ids[index] for index in chosen))
    return RunSpec(f"smp:{network}", data, MaskTarget((0.75,)), vary=vary, budget=setting.n, n0=10)


def row(folder: RunFolder, records: Sequence[Record], spec: RunSpec, setting: Set) -> dict[str, Any]:
    """The figures of one run and its attacks."""
    certificates = [next(iter(record.certificates.values())) for record in records]
    grid = len(spec.vary) <= 2 and not spec.segments
    how = setting.attack.to_dict() | {"search": "grid" if grid else "gradient"}
    found = attack(folder, AttackSpec.from_dict(how), images=setting.attacked)
    rows = found.rows()
    radii = np.sort([one.real_radius for one in certificates])
    median = float(radii[math.ceil(len(radii) / 2) - 1])
    settings = certificates[0].about.settings
    assert settings is not None
    return {
        "vary": list(spec.vary),
        "noise": [f"{one.name} {noise_text(one)}" for one in settings.axes],
        "images": len(records),
        "certified": sum(not one.abstained for one in certificates),
        "radius": median,
        "reach": [one.reach(median) for one in settings.axes],
        "units": ["factor" if one.how == "multiplied" else one.unit for one in settings.axes],
        "right": None if spec.segments else [_right(record) for record in records].count(True),
        "clean": None if spec.segments else [record.clean["plain"] == record.label for record in records].count(True),
        "guaranteed": [_guaranteed(record) for record in records] if spec.segments else None,
        "share": [one.share_certified for one in certificates] if spec.segments else None,
        "attacked": len(rows),
        "inside": sum(one["inside"] for one in rows),
        "broken": [one["broken"] for one in rows],
        "ratios": [one["ratio"] for one in rows],
        "base": [one["base"] for one in rows],
        "dice": [[one["guaranteed_dice"], one["reached_dice"]] for one in rows] if spec.segments else None,
    }


def _right(record: Record) -> bool:
    one = next(iter(record.certificates.values()))
    return not one.abstained and getattr(one, "prediction", None) == record.label


def _guaranteed(record: Record) -> float:
    per_class = record.scores["plain"].per_class["guaranteed Dice"]
    return float(np.mean(per_class[1:]))


def _certify(given: argparse.Namespace, places: Places) -> tuple[str, dict[str, Any]]:
    own = {name: value for name in ("images", "attacked", "n") if (value := getattr(given, name)) is not None}
    setting, rows = replace(SETS[given.name], **own), []
    for number, vary in enumerate(setting.vary):
        spec = request(given.name, setting, vary, places)
        path = (given.out or places.models / "settings") / given.name / str(number)
        folder = execute(spec, path, resume=path.exists())
        records = [record for record in folder.records() if record.certificates]
        rows.append(row(folder, records, spec, setting))
    about = {"n": setting.n, "alpha": 0.001, "attack": setting.attack.to_dict()}
    return f"settings_{given.name}", {"set": given.name, "title": setting.title, "setting": about, "rows": rows}


_INTRODUCTION = """## Settings of a workflow

Noise is on the settings alone, the raw image is fixed. *reach*: what the median image's radius allows each setting
alone, rounded down (a factor where changes multiply); together they stay in the ellipsoid. *sandwich*: attacks on
some of the images, all around for up to two settings, else by gradient; ratio of the smallest change found that breaks
the smoothed answer to the certified radius, infinite where none was found within three radii.

Made with `python -m benchmarks.study_settings --set demo|jsrt4`, then `--report`.
"""


def write_section(path: Path, studies: Sequence[dict[str, Any]]) -> None:
    """Replace the section, or add it at the end; InputError where there are no results."""
    if not studies:
        raise InputError("there are no results to report; run a set first, e.g. --set demo")
    replace_section(path, MARKER, "\n".join([_INTRODUCTION, *(_section(study) for study in studies)]))


def _section(study: dict[str, Any]) -> str:
    masks = study["rows"][0]["dice"] is not None
    setting, first = study["setting"], study["rows"][0]
    kept = "pixels certified | guaranteed Dice" if masks else "clean right | certified right"
    lines = [
        f"### {study['title']}\n",
        f"{first['images']} images, n = {setting['n']}, alpha = {setting['alpha']:g}; attacked: PREDICT at n = "
        f"{setting['attack']['n']}.\n",
        f"| noise | {kept} | reach of the median image | attacked | broken | ratio: quartiles | inside |"
        + (" guaranteed to reached Dice |" if masks else ""),
        "|---" * (9 if masks else 8) + "|",
    ]
    for one in study["rows"]:
        reach = ", ".join(_reach(value, unit) for value, unit in zip(one["reach"], one["units"]))
        cells = [", ".join(one["noise"])]
        if masks:
            cells += [
                f"{100 * np.mean(one['share']):.1f} %",
                shown(float(np.mean(one["guaranteed"])), "lower", places=3),
            ]
        else:
            cells += [f"{one['clean']} of {one['images']}", f"{one['right']} of {one['images']}"]
        ratios = sorted(math.inf if value is None else value for value in one["ratios"])
        cells += [reach, str(one["attacked"]), str(sum(value is not None for value in one["broken"]))]
        cells += [_quartiles(ratios), str(one["inside"])]
        if masks:
            low, high = (float(np.mean(values)) for values in zip(*one["dice"]))
            cells.append(f"{shown(low, 'lower', places=3)} to {shown(high, 'upper', places=3)}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _reach(value: float, unit: str) -> str:
    far = shown(value, "lower", digits=3)
    return f"x{far}" if unit == "factor" else f"±{far} {unit}".rstrip()


def _quartiles(ratios: Sequence[float]) -> str:
    if not ratios:
        return "-"
    places = [ratios[math.ceil(share * len(ratios)) - 1] for share in (0.25, 0.5, 0.75)]
    return ", ".join("inf" if math.isinf(one) else f"{one:.2f}" for one in places)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="default: settings below the models")
    for name in ("images", "attacked", "n"):
        parser.add_argument(f"--{name}", type=int, help="default: as the set says")


if __name__ == "__main__":
    report_command(__doc__, list(SETS), _options, _certify, write_section, "settings_{}.json")
