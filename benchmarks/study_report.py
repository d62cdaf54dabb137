"""The sections of ``docs/results.md``, made from the results of the studies: prompts under noise, and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.home import replace_section
from certimed.errors import InputError

MARKER = "promptsmooth"
SHOWN_RADII = (0.0, 0.1, 0.25, 0.5, 1.0, 1.5)
SUBSTANTIAL_LOSS = 0.2
TITLES = {
    "demo": "Demo: brain MRI slices (MNI152 template)",
    "lc25000": "LC25000: histology patches of colon and lung",
    "kermany": "Kermany 2018: chest radiographs of children",
}
_INTRODUCTION = """## Prompts learnt under noise

Small CLIPs trained without any noise; their vision and text encoders stay frozen. Every method is certified on the
same noise. Brackets are 95 % intervals over images (Clopper-Pearson; bootstrap for differences). *plain* is
smoothing of zero-shot prompts; *few-shot* is one prompt for all sigmas, with a context for each class, tuned for 300
epochs (this recipe was chosen on training images that are no shots); *few-shot, shared* has one context for all
classes; *few-shot, one sigma* is tuned for its own sigma alone. *linear probe* is a logistic regression on as many
noisy copies of the same shots, at the same mix of sigmas (or at one): what the embeddings still hold. *zero-shot* and
*both* tune on the test image itself: their certificates hold for the prompt frozen at that image (*), all others for
the whole pipeline.

Made with `python -m benchmarks.study_promptsmooth --set demo|lc25000|kermany`, then `--report`.
"""


def write_section(path: Path, studies: Sequence[dict[str, Any]]) -> None:
    """Replace the section of the studies' kind, or add it at the end; the rest of the file is left alone.

    Raises:
        InputError: no results yet, or one marker without the other.
    """
    if not studies:
        raise InputError("there are no results to report; run a set first, e.g. --set demo")
    if "unfinished" in studies[0]:
        parts = [_INTRODUCTION, *(study_section(study) for study in studies)]
        replace_section(path, MARKER, "\n".join(parts))
    else:
        parts = [_MASK_INTRODUCTION, *(mask_section(study) for study in studies)]
        replace_section(path, MASK_MARKER, "\n".join(parts))


def study_section(study: dict[str, Any]) -> str:
    """Heading, table of all methods, what noise costs and what is recovered."""
    setting = study["setting"]
    head = (
        f"### {TITLES[study['set']]}\n\n{setting['images']} test images, {study['classes']} classes, input "
        f"{'x'.join(map(str, study['model']['input_shape']))}, n0 = {setting['n0']}, n = {setting['n']}, alpha = "
        f"{setting['alpha']:g}, {setting['shots']} shots a class, seed {setting['seed']}.\n"
    )
    if study["unfinished"]:
        head += f"Not certified yet: sigma {', '.join(f'{sigma:g}' for sigma in study['unfinished'])}.\n"
    return "\n".join([head, accuracy_table(study), recovery_table(study), *readings(study), ""])


def accuracy_table(study: dict[str, Any]) -> str:
    """Certified accuracy (%) by sigma, method and radius."""
    columns = [study["radii"].index(radius) for radius in SHOWN_RADII]
    lines = [
        "Certified accuracy (%) at radius r; clean and noisy: accuracy without smoothing.",
        "",
        "| sigma | method | clean | noisy | " + " | ".join(f"r = {r:g}" for r in SHOWN_RADII) + " |",
        "|---|---|" + "---|" * (len(SHOWN_RADII) + 2),
    ]
    for sigma, found in study["sigmas"].items():
        for name, row in found["methods"].items():
            mark = "" if row["scope"] == "end-to-end" else "*"
            cells = [interval(row["certified"][i], *row["intervals"][i]) for i in columns]
            shares = f"{percent(row['clean'])} | {percent(row['noisy'])}"
            lines.append(f"| {sigma} | {name}{mark} | {shares} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def recovery_table(study: dict[str, Any]) -> str:
    """Points of certified accuracy at radius 0: lost by plain smoothing, recovered by few-shot and by the probe."""
    lines = [
        "Points of certified accuracy at r = 0: lost by plain smoothing against clean accuracy, and recovered.",
        "",
        "| sigma | lost | few-shot | share of loss | shared context | share of loss | probe | few-shot / probe | "
        "one sigma - mixed |",
        "|---" * 9 + "|",
    ]
    for sigma, found in study["sigmas"].items():
        r = recovery(found)
        few, shared, probe, single = (
            interval(d["mean"], d["low"], d["high"]) for d in (r["few-shot"], r["shared"], r["probe"], r["one-sigma"])
        )
        cells = [
            percent(r["loss"]), few, share(r["share"]), shared, share(r["shared-share"]), probe,
            share(r["of-probe"]), single,
        ]  # fmt: skip
        lines.append(f"| {sigma} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def recovery(found: dict[str, Any]) -> dict[str, Any]:
    """What noise of one sigma takes from plain smoothing, and what comes back.

    Returns:
        ``loss`` (clean minus certified accuracy of "plain" at r = 0), the differences of ``few-shot``, ``shared`` and
        ``probe`` to "plain" and of ``one-sigma`` to few-shot, and ratios: ``share`` and ``shared-share`` of the loss,
        ``of-probe``; None where the denominator is not positive.
    """
    plain, differences = found["methods"]["plain"], found["differences"]
    loss = plain["clean"] - plain["certified"][0]
    few, shared = differences["few-shot - plain"], differences["few-shot, shared - plain"]
    probe = differences["linear probe - plain"]
    return {
        "loss": loss,
        "few-shot": few,
        "shared": shared,
        "probe": probe,
        "one-sigma": differences["few-shot, one sigma - few-shot"],
        "share": few["mean"] / loss if loss > 0 else None,
        "shared-share": shared["mean"] / loss if loss > 0 else None,
        "of-probe": few["mean"] / probe["mean"] if probe["mean"] > 0 else None,
    }


def readings(study: dict[str, Any]) -> list[str]:
    """What the figures say about the aims, in sentences: recovered at least half, and one prompt for all sigmas."""
    said = []
    for sigma, found in study["sigmas"].items():
        r = recovery(found)
        if r["loss"] >= SUBSTANTIAL_LOSS:
            half = r["share"] >= 0.5
            text = f"* sigma {sigma}: few-shot recovers {share(r['share'])} of the {percent(r['loss'])} points lost"
            if half:
                text += ": at least half."
            elif r["of-probe"] is not None:
                enough = "at least" if round(r["of-probe"], 9) >= 0.8 else "less than"
                text += f": less than half; the probe recovers {percent(r['probe']['mean'])} points, few-shot "
                text += f"{share(r['of-probe'])} of that ({enough} 80 %)."
            else:
                text += ": less than half; the probe recovers nothing, so the embeddings hold no more."
        else:
            text = f"* sigma {sigma}: plain smoothing loses {percent(r['loss'])} points, too little to judge recovery."
        gap = r["one-sigma"]["mean"]
        verdict = "within" if gap <= 0.05 else "NOT within"
        said.append(f"{text} The mixed prompt is {verdict} 5 points of the prompt for this sigma ({100 * gap:+.1f}).")
    return said


def interval(mean: float, low: float, high: float) -> str:
    """``62 [54, 70]`` in percent."""
    return f"{100 * mean:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def percent(value: float | None) -> str:
    """In percent without the sign."""
    return "-" if value is None else f"{100 * value:.0f}"


def share(value: float | None) -> str:
    """In percent with the sign."""
    return "-" if value is None else f"{100 * value:.0f} %"


MASK_MARKER = "segmentation"
MASK_TITLES = {
    "jsrt": "JSRT: chest radiographs, lungs",
    "jsrt4": "JSRT: chest radiographs, right lung, left lung, heart",
    "shenzhen": "Shenzhen: chest radiographs, lungs",
    "isic": "ISIC 2017: dermoscopy, lesion",
    "cvc": "CVC-ClinicDB: colonoscopy, polyp, split by sequence",
}
PUBLISHED_N = 100
WANTED_RISE, WANTED_GAP = 0.30, 0.12
"""At sigma .5 a denoiser should raise guaranteed Dice by the first, or bring it within the second of clean Dice."""

_MASK_INTRODUCTION = """## Certified segmentation

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


def mask_section(study: dict[str, Any]) -> str:
    """Heading, table, classes where there are several, and what the figures say."""
    setting = study["setting"]
    groups = "" if study["groups"] is None else f" of {study['groups']} sequences"
    precision = "bfloat16 autocast" if setting["bfloat16"] else "float32"
    title = (
        f"### {MASK_TITLES[study['set']]}" if setting["n"] == PUBLISHED_N else f"#### The same with n = {setting['n']}"
    )
    head = (
        f"{title}\n\n{setting['images']} test images{groups}, n0 = {setting['n0']}, "
        f"n = {setting['n']}, {precision}, seed {setting['seed']}.\n"
    )
    parts = [head, dice_table(study)]
    if len(study["classes"]) > 2:
        parts.append(class_table(study))
    return "\n".join([*parts, mask_reading(study), ""])


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


def mask_reading(study: dict[str, Any]) -> str:
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
