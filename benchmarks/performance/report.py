"""``performance.md``: the bars, then a table for each section, each saying what was measured and what multiplied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.home import table
from benchmarks.performance.bars import FAST, FAST_EXACT, LOW, OURS, Results, bars, between, loop_ratio, section
from benchmarks.performance.classification import PUBLISHED
from benchmarks.performance.processes import ART_VERSION
from benchmarks.performance.replay import DECISIONS

_INTRODUCTION = """# Performance

What a certificate costs here, beside the published procedures (our own rewrites, in `benchmarks/reference/`) and the
toolbox a user would pick today. All of it is made by one command, and every figure below comes from its results in
`benchmarks/results/performance_*.json`:

<!-- not run: it takes half an hour on two idle cores -->
```bash
python -m benchmarks.performance --out docs
```

Sides of a comparison run in turn, in one process (or each in a process of its own where memory counts), on one
thread. Times are processor time, which on one thread is the time on the clock of an idle machine, and steadier on a
busy one (the clock is kept beside it in the results). Figures are medians, spreads are the smallest and the largest
run. *Samples* are estimation samples; the n0 selection samples come on top and are part of every time. A bar that was
not met says so. Nothing here ran on a GPU: there was none (`make test-gpu` runs the tests that need one).
"""


def write_report(results: Results, figures: dict[str, Path], path: Path) -> Path:
    """Write the whole document."""
    parts = [_INTRODUCTION, _machine(results), "## Bars\n", _bars(results)]
    for title, figure, make in PARTS:
        text = make(results)
        if text is None:
            continue
        parts.append(f"## {title}\n\n{text}")
        if figure in figures:
            parts.append(f"![{title}]({figures[figure].relative_to(path.parent).as_posix()})\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(part.rstrip() + "\n" for part in parts), encoding="utf-8")
    return path


def _bars(results: Results) -> str:
    words = {True: "yes", False: "**no**", None: "-"}
    rows = [[bar.bar, bar.measured, bar.spread or "-", words[bar.met]] for bar in bars(results)]
    return table(["bar", "measured", "spread", "met"], rows)


_OLD = """
The loops, the other toolbox, shares, images and memory were measured before labels and masks got one engine, other
engines came and the grid law became the default; the command above measures them anew. What the grid law costs is
measured by `python -m benchmarks.noise`.
"""


def _machine(results: Results) -> str:
    if not results:
        return "Nothing has been measured yet.\n"
    first = next(iter(results.values()))
    about = first["machine"]
    loads = [one["machine"]["load"] for one in results.values() if one["machine"]["load"] is not None]
    low = ", ".join(about["bfloat16"]) or "none"
    minutes = sum(one["seconds"] for one in results.values()) / 60
    quick = (
        "" if first["settings"]["name"] == "full" else "\n**A quick run: the sizes are too small to mean anything.**\n"
    )
    return (
        f"Machine: {about['processor']}, {about['cores']} cores, **{about['threads']} thread** for everything timed, "
        f"bfloat16 instructions: {low}; Python {about['python']}, PyTorch {about['torch']}. Load of the machine when "
        f"a section began: {min(loads, default=0):.1f} to {max(loads, default=0):.1f}. It all took {minutes:.0f} min.\n"
        f"{quick}{_OLD if 'fast' not in (section(results, 'loop') or {'fast'}) else ''}"
    )


def _budgets(results: Results) -> str | None:
    study = section(results, "study")
    if study is None:
        return None
    counted = ", ".join(f"{name} {count}" for name, count in study["images"].items())
    text = (
        f"All budgets at alpha 0.001 with a cap of n = {study['n']}, against a fixed n on the very same samples. The "
        f"studies certified their test images ({counted}) at four sigmas with plain and few-shot prompts, n = 1000; "
        "each run here is drawn from the class probabilities those counts make likely (Jeffreys' posterior, the "
        "most frequent class against the rest), "
        f"{study['runs']} runs in all. No forward pass is saved or spent here: a budget reads the first samples of a "
        "run, as the engine does, because sample i depends on its key and i alone.\n\n"
    )
    text += _budget_table(study)
    text += "\nMean samples by sigma:\n\n" + _samples_by_sigma(study)
    recorded = section(results, "recorded")
    if recorded is not None and recorded["runs"]:
        counted = ", ".join(f"{name} {count}" for name, count in recorded["images"].items())
        text += (
            f"\nThe same on runs that were really drawn ({counted} images at four sigmas; {recorded['runs']} runs of "
            f"{recorded['n']} samples, each replayed in {recorded['replays']} orders):\n\n{_budget_table(recorded)}"
        )
    return text


def _budget_table(found: dict[str, Any]) -> str:
    rows = []
    for title, one in found["all"].items():
        middle = " / ".join(f"{value:.0f}" for value in one["quartiles"])
        row = [title, f"{one['samples']:.0f}", middle, f"{one['same decision']:.2%}"]
        if title in DECISIONS:
            rows.append([*row, "-", "-", "-"])
        else:
            losses = [f"{one['radius loss']:.2%}", f"{one['mean relative loss']:.2%}"]
            rows.append([*row, *losses, f"{100 * one['accuracy difference']:.2f}"])
    head = ["budget", "mean samples", "quartiles", "equal decisions at r = sigma", "loss of the mean radius"]
    return table([*head, "mean loss of an image", "largest difference of certified accuracy (points)"], rows)


def _samples_by_sigma(found: dict[str, Any]) -> str:
    sigmas = list(found["sigmas"])
    titles = list(found["all"])
    rows = [[title, *(f"{found['sigmas'][sigma][title]['samples']:.0f}" for sigma in sigmas)] for title in titles]
    return table(["budget", *(f"sigma {sigma}" for sigma in sigmas)], rows)


def _loop(results: Results) -> str | None:
    loop = section(results, "loop")
    if loop is None:
        return None
    rows = [
        [
            side,
            f"{1000 * one['median']:.1f} ms",
            f"{1000 * one['low']:.1f} to {1000 * one['high']:.1f} ms",
            f"{1 / one['median']:.1f}",
        ]
        for side, one in loop["seconds a sample"].items()
    ]
    text = (
        f"A CLIP of PLIP's size with random weights ({loop['parameters']}), {loop['classes']} classes of colon tissue. "
        "The published loop encodes the prompts anew for every batch of 100, at the text encoder's full length; counts "
        f"of both loops on the same noise: {'equal' if loop['equal counts'] else 'not equal'}.\n\n"
        f"**Measured**, {loop['samples']} samples a run:\n\n"
        + table(["loop", "a sample", "spread", "samples a second"], rows)
    )
    ours = {side: found for side in (OURS, FAST_EXACT, LOW, FAST) if (found := loop_ratio(results, side)) is not None}
    if not ours:
        return text
    first = ours[OURS]
    rows = [
        [
            sigma,
            f"{count:.0f}",
            f"{first['published']:.0f} s",
            *(f"{found['ours'][sigma]:.0f} s" for found in ours.values()),
        ]
        for sigma, count in first["samples"].items()
    ]
    less = ", ".join(f"{found['ratio']['median']:.1f} x less time ({side})" for side, found in ours.items())
    return text + (
        "\n**Multiplied**: time an image = samples an image x seconds a sample. A model with random weights has no "
        "accuracy to speak of, so the samples are those of the default budget on the studies' images (above), "
        "selection samples included; the published loop always takes n0 + n.\n\n"
        + table(["sigma", "samples an image", PUBLISHED, *ours], rows)
        + f"\nOver the four sigmas: {first['fewer']:.2f} x fewer samples; {less}.\n"
    )


def _engines(results: Results) -> str | None:
    found = section(results, "engines")
    if found is None:
        return None
    rows = []
    for model, one in found["models"].items():
        for side, seconds in one["seconds a sample"].items():
            ratio = one["over bfloat16"][side]
            rows.append(
                [model, side, f"{1000 * seconds['median']:.2f} ms", f"{ratio['median']:.2f} x", between(ratio, "")]
            )
        rows += [[model, side, "not run", "-", why] for side, why in one["missing"].items()]
    return (
        f"Forward passes alone, batches of {found['batch']}, random weights where the model is not the demo's. "
        "[What another engine means for a certificate](scale.md#engines).\n\n"
        + table(["model", "engine", "a sample", "over PyTorch's bfloat16 autocast", "spread"], rows)
    )


def _images(results: Results) -> str | None:
    found = section(results, "images")
    if found is None:
        return None
    rows = []
    for side in found["sides"]:
        for sigma in sorted({row["sigma"] for row in found["rows"]}):
            mine = [row[side] for row in found["rows"] if row["sigma"] == sigma]
            seconds = [one["seconds"] for one in mine]
            means = [sum(one[key] for one in mine) / len(mine) for key in ("seconds", "samples", "radius")]
            rows.append(
                [
                    side,
                    f"{sigma:g}",
                    f"{means[0]:.2f} s",
                    f"{min(seconds):.2f} to {max(seconds):.2f} s",
                    f"{means[1]:.0f}",
                    f"{means[2]:.3f}",
                ]
            )
    count = len({row["label"] for row in found["rows"]})
    return (
        f"Measured from end to end, nothing multiplied: {count} images of the demo, n0 = {found['n0']}, cap "
        f"n = {found['n']}, all sides in turn on each image and on the same noise.\n\n"
        + table(["side", "sigma", "time an image", "spread over images", "samples", "mean radius"], rows)
    )


def _verdicts(results: Results) -> str | None:
    found, loop, demo = (section(results, name) for name in ("verdicts", "loop", "demo"))
    text = ""
    if found is not None:
        rows = [[name, f"{share:.1%}"] for name, share in found["different"].items()]
        text += (
            f"The trained demo model in float32 and under bfloat16 autocast, same noise, n = {found['n']}, "
            f"{found['verdicts']} verdicts. What is certified is the model that ran; a certificate says which did.\n\n"
            + table(["verdicts that differ in", "share"], rows)
            + f"\n{found['counts moved']:.2%} of samples change their class; the radius moves by "
            f"{found['radius moved, in sigmas']:.4f} sigma on average.\n"
        )
    if loop is not None and demo is not None:
        shares = {"PLIP size, float32": loop["forward share"][OURS], "PLIP size, bfloat16": loop["forward share"][LOW]}
        shares |= {"demo, float32": demo[OURS]}
        if FAST in loop["forward share"]:
            shares[f"PLIP size, OpenVINO ({loop['fast']})"] = loop["forward share"][FAST]
        rows = [
            [name, f"{one['median']:.1%}", f"{one['low']:.1%} to {one['high']:.1%}"] for name, one in shares.items()
        ]
        text += "\nShare of certification time inside the model:\n\n" + table(["model", "share", "spread"], rows)
    return text or None


def _segmentation(results: Results) -> str | None:
    found, alone = section(results, "segmentation"), section(results, "statistics")
    text = ""
    if found is not None:
        rows = [
            [
                side,
                f"{one['median']:.1f} s",
                f"{one['low']:.1f} to {one['high']:.1f} s",
                f"{found['pixels that differ'].get(side, 0.0):.3%}",
            ]
            for side, one in found["seconds"].items()
        ]
        text += (
            f"One image of {found['side']}x{found['side']} through the segmentation study's U-Net (ResNet-18) behind "
            f"its denoiser (random weights; both certify {found['certified']:.0%} of the pixels), n0 = {found['n0']}, "
            f"n = {found['n']}, Holm. The published loop takes one copy at a time, keeps every prediction and tests "
            "every pixel by itself.\n\n" + table(["loop", "time an image", "spread", "pixels decided otherwise"], rows)
        )
    if alone is not None:
        rows = [
            [
                f"{side}x{side}",
                f"{one[PUBLISHED]['median']:.2f} s",
                f"{1e6 * one['certimed']['median']:.0f} µs",
                f"{one['speed-up']['median']:.0f} x",
            ]
            for side, one in alone["sides"].items()
        ]
        text += (
            f"\nFrom agreement counts (n = {alone['n']}) to certified pixels alone; the masks are equal:\n\n"
            + table(["pixels", "a test a pixel and a sort", "one count threshold", "ratio"], rows)
        )
    return text or None


def _art(results: Results) -> str | None:
    found = section(results, "art")
    if found is None:
        return None
    if "missing" in found:
        return f"Not measured; it needs an environment of its own:\n\n```bash\n{found['missing']}\n```\n"
    return (
        f"adversarial-robustness-toolbox {ART_VERSION}, `PyTorchRandomizedSmoothing.certify`, on the demo model, sigma "
        f"{found['sigma']:g}, n0 = {found['n0']}, n = {found['n']}, alpha 0.001, each side in its own process. Its "
        "`_noisy_samples` repeats the image n times and adds `numpy.random.normal` of that shape, so all n copies "
        "(and their float64 noise) are in memory at once; it has no seed and no early stop. Memory is what the "
        "certificates added to the process at its peak. With the same fixed n both run the same number of forward "
        "passes, and that number does not depend on the image. The default budget has the same alpha and cap and "
        "answers the same reported radii; its samples do depend on the image, so it is the mean over one image of "
        "every class.\n\n"
        + table(
            ["side", "images", "time an image", "spread", "samples an image", "memory", "class, radius of the first"],
            [_art_row(found, side) for side in found["seconds"]],
        )
    )


def _art_row(found: dict[str, Any], side: str) -> list[str]:
    seconds, results = found["seconds"][side], found["results"][side]
    samples = [image[2] for image in results]
    return [
        side,
        str(len(results)),
        f"{seconds['median']:.2f} s",
        f"{seconds['low']:.2f} to {seconds['high']:.2f} s",
        f"{sum(samples) / len(samples):.0f} ({min(samples)} to {max(samples)})",
        f"{found['bytes'][side]['median'] / 2**20:.0f} MiB",
        f"{results[0][0]:.0f}, {results[0][1]:.6f}",
    ]


def _memory(results: Results) -> str | None:
    found = section(results, "memory")
    if found is None:
        return None
    rows = []
    for name, sizes in found["budgets"].items():
        each = [f"{n} ({one['result']}): {one['peak'] / 2**20:.0f}" for n, one in sizes.items()]
        rows.append([name, ", ".join(each)])
    return (
        "Peak of the whole process in MiB, at growing caps, with a model that costs nothing: 3x224x224 images for "
        "classification, 256x256 for segmentation. A budget that has its answer draws fewer samples than its cap.\n\n"
        + table(["budget", "cap (samples drawn): MiB"], rows)
    )


def _growth(results: Results) -> str | None:
    found = section(results, "growth")
    if found is None:
        return None
    text = (
        f"Seconds of one certificate (medians). Samples: the demo model. The others: {found['model']['others']}, "
        f"n = {found['n']}; encoding the class names is counted on our side for the classes curve.\n\n"
    )
    for axis in ("samples", "image side", "classes", "prompts"):
        points = found[axis]
        sides = list(next(iter(points.values())))
        rows = [[side, *(f"{point[side]['median']:.2f}" for point in points.values())] for side in sides]
        text += table([axis, *points], rows) + "\n"
    return text


PARTS: tuple[tuple[str, str, Callable[[Results], str | None]], ...] = (
    ("Fewer samples: budgets", "budgets", _budgets),
    ("Engines", "", _engines),
    ("Against the published classification loop", "loop", _loop),
    ("Images from end to end", "images", _images),
    ("Precision, and where the time goes", "", _verdicts),
    ("Against the published segmentation loop", "", _segmentation),
    ("Against adversarial-robustness-toolbox", "", _art),
    ("Memory", "memory", _memory),
    ("How the cost grows", "growth", _growth),
)
