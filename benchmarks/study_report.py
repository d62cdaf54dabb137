"""The section of ``docs/results.md`` about prompts learnt under noise, made from the results of the studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.sections import replace_section
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
same noise. Brackets are 95 % intervals over images (Clopper-Pearson; bootstrap for differences). *none* is plain
smoothing of zero-shot prompts; *few-shot* is one prompt for all sigmas, with a context for each class, tuned for 300
epochs (this recipe was chosen on training images that are no shots); *few-shot, shared* has one context for all
classes; *few-shot, one sigma* is tuned for its own sigma alone. *linear probe* is a logistic regression on as many
noisy copies of the same shots, at the same mix of sigmas (or at one): what the embeddings still hold. *zero-shot* and
*both* tune on the test image itself: their certificates hold for the prompt frozen at that image (*), all others for
the whole pipeline.

Made with `python -m benchmarks.study_promptsmooth --set demo|lc25000|kermany`, then `--report`.
"""


def write_section(path: Path, studies: Sequence[dict[str, Any]]) -> None:
    """Replace what stands between the markers, or add the section at the end; the rest of the file is left alone.

    Raises:
        InputError: no results yet, or one marker without the other.
    """
    if not studies:
        raise InputError("there are no results to report; run a set first, e.g. --set demo")
    replace_section(path, MARKER, "\n".join([_INTRODUCTION, *(study_section(study) for study in studies)]))


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
        ``loss`` (clean minus certified accuracy of "none" at r = 0), the differences of ``few-shot``, ``shared`` and
        ``probe`` to "none" and of ``one-sigma`` to few-shot, and ratios: ``share`` and ``shared-share`` of the loss,
        ``of-probe``; None where the denominator is not positive.
    """
    plain, differences = found["methods"]["none"], found["differences"]
    loss = plain["clean"] - plain["certified"][0]
    few, shared = differences["few-shot - none"], differences["few-shot, shared - none"]
    probe = differences["linear probe - none"]
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
