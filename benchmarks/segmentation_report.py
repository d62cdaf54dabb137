"""The section of ``docs/results.md`` about certified segmentation, made from the results of the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.sections import replace_section
from certimed.errors import InputError

MARKER = "segmentation"
TITLES = {
    "jsrt": "JSRT: chest radiographs, lungs",
    "jsrt4": "JSRT: chest radiographs, right lung, left lung, heart",
    "shenzhen": "Shenzhen: chest radiographs, lungs",
    "isic": "ISIC 2017: dermoscopy, lesion",
    "cvc": "CVC-ClinicDB: colonoscopy, polyp, split by sequence",
}
PUBLISHED_N = 100
WANTED_RISE, WANTED_GAP = 0.30, 0.12
"""At sigma .5 a denoiser should raise guaranteed Dice by the first, or bring it within the second of clean Dice."""

_INTRODUCTION = """## Certified segmentation

U-Nets (ResNet-18 encoder, from scratch, 128x128) trained on clean images only, and in front of them one small
denoising diffusion model a modality (JSRT and Shenzhen share one), trained on the same training images; no test image
was seen by either. Published protocol: n0 = 10, n = 100, tau = .75, alpha = .001 an image, Holm. *clean* and *noisy*
are the Dice of the plain prediction without and with one draw of noise, nothing being certified. *published* is the
certified Dice of Laousy et al. (abstained background never counts as a false positive). *guaranteed* is the lowest
Dice any attack below the radius can reach, *best* the highest. All are means over foreground classes, then images;
brackets are 95 % bootstrap intervals over images (over sequences for CVC-ClinicDB).

Made with `python -m training.study_segmentation` (networks and denoisers), then
`python -m benchmarks.study_segmentation --set jsrt|jsrt4|shenzhen|isic|cvc`, then `--report`.
"""


def write_section(path: Path, studies: Sequence[dict[str, Any]]) -> None:
    """Write the section anew; the rest of the file is left alone.

    Raises:
        InputError: no results yet, or one marker without the other.
    """
    if not studies:
        raise InputError("there are no results to report; run a set first, e.g. --set jsrt")
    replace_section(path, MARKER, "\n".join([_INTRODUCTION, *(study_section(study) for study in studies)]))


def study_section(study: dict[str, Any]) -> str:
    """Heading, table, classes where there are several, and what the figures say."""
    setting = study["setting"]
    groups = "" if study["groups"] is None else f" of {study['groups']} sequences"
    precision = "bfloat16 autocast" if setting["bfloat16"] else "float32"
    title = f"### {TITLES[study['set']]}" if setting["n"] == PUBLISHED_N else f"#### The same with n = {setting['n']}"
    head = (
        f"{title}\n\n{setting['images']} test images{groups}, n0 = {setting['n0']}, "
        f"n = {setting['n']}, {precision}, seed {setting['seed']}.\n"
    )
    parts = [head, dice_table(study)]
    if len(study["classes"]) > 2:
        parts.append(class_table(study))
    return "\n".join([*parts, reading(study), ""])


def dice_table(study: dict[str, Any]) -> str:
    """One row a sigma and method."""
    lines = [
        "| sigma | radius | model | clean | noisy | published | guaranteed | best | guaranteed IoU | abstained |",
        "|---" * 10 + "|",
    ]
    for sigma, found in study["sigmas"].items():
        for name, row in found["methods"].items():
            means = row["foreground"]
            low = means["guaranteed Dice"]
            cells = [
                *(
                    f"{means[key]['mean']:.3f}"
                    for key in ("Dice (clean)", "Dice (noisy)", "certified Dice (published)")
                ),
                f"**{low['mean']:.3f}** [{low['low']:.3f}, {low['high']:.3f}]",
                f"{means['best-case Dice']['mean']:.3f}",
                f"{means['guaranteed IoU']['mean']:.3f}",
                f"{100 * row['abstained']:.1f} %",
            ]
            lines.append(f"| {sigma} | {found['radius']:.3f} | {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def class_table(study: dict[str, Any]) -> str:
    """Guaranteed Dice of every foreground class behind the denoiser."""
    names = study["classes"][1:]
    lines = ["Guaranteed Dice of each class, denoised:", "", "| sigma | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for sigma, found in study["sigmas"].items():
        row = found["methods"]["denoised"]["classes"]
        lines.append(f"| {sigma} | " + " | ".join(f"{row[name]['mean']:.3f}" for name in names) + " |")
    return "\n".join([*lines, ""])


def reading(study: dict[str, Any]) -> str:
    """What the denoiser brings at sigma .5, against the aim."""
    found = study["sigmas"]["0.5"]["methods"]
    dice = {name: row["foreground"]["guaranteed Dice"]["mean"] for name, row in found.items()}
    gap = found["denoised"]["foreground"]["Dice (clean)"]["mean"] - dice["denoised"]
    said, met = f"At sigma .5 guaranteed Dice behind the denoiser is {gap:.3f} below the clean Dice", gap <= WANTED_GAP
    if "plain" in dice:
        rise = dice["denoised"] - dice["plain"]
        said, met = f"{said} and {rise:.3f} above that without it", met or rise >= WANTED_RISE
    verdict = "met" if met else "NOT met"
    return f"{said}; the aim (within {WANTED_GAP:g} of clean, or {WANTED_RISE:g} above) is {verdict}."
