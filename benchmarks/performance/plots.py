"""Plots of the results: Okabe and Ito's colours with markers of their own, told apart in grey print too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.bars import LOW, OURS, Results, loop_ratio, section
from benchmarks.performance.classification import PUBLISHED
from benchmarks.performance.replay import GRID
from certimed.budgets import PUBLISHED_RADII
from certimed.errors import require

STYLES = (
    ("#000000", "o", "-"),
    ("#0072B2", "s", "-"),
    ("#D55E00", "^", "--"),
    ("#009E73", "D", "-."),
    ("#CC79A7", "v", ":"),
    ("#E69F00", "P", "--"),
    ("#56B4E9", "X", "-."),
)
DPI = 110

Draw = Callable[[Any, Results], None]


def draw(results: Results, folder: Path) -> dict[str, Path]:
    """Draw what there are results for: name of the part -> PNG below ``folder``."""
    require("matplotlib", "figures")
    from matplotlib.figure import Figure

    made = {}
    for name, (needs, width, height, make) in FIGURES.items():
        if any(section(results, need) is None for need in needs):
            continue
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        make(figure, results)
        folder.mkdir(parents=True, exist_ok=True)
        made[name] = folder / f"performance-{name}.png"
        figure.savefig(made[name])
    return made


def _budgets(figure: Any, results: Results) -> None:
    """Mean samples by sigma; certified accuracy of the default budget on top of a fixed n."""
    study = results["study"]["result"]
    left, right = figure.subplots(1, 2)
    sigmas = list(study["sigmas"])
    for title, (colour, marker, line) in zip(study["all"], STYLES[1:]):
        samples = [study["sigmas"][sigma][title]["samples"] for sigma in sigmas]
        left.plot(sigmas, samples, line, color=colour, marker=marker, label=title)
    left.axhline(study["n"], color="black", lw=1)
    left.annotate("fixed n", (0, study["n"]), va="bottom", fontsize=8)
    left.set(yscale="log", xlabel="sigma", ylabel="mean estimation samples an image")
    left.legend(fontsize=7, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.25))
    for (sigma, curve), (colour, marker, _) in zip(study["all"][GRID]["accuracy"].items(), STYLES[1:]):
        right.plot(PUBLISHED_RADII, curve["fixed n"], "-", color=colour, lw=1, label=f"fixed n, sigma {sigma}")
        right.plot(
            PUBLISHED_RADII, curve["budget"], marker, color=colour, mfc="none", ms=7, label=f"default, sigma {sigma}"
        )
    right.set(xlabel="reported radius (L2, [0, 1] units)", ylabel="certified accuracy", ylim=(0, 1))
    right.legend(fontsize=6, frameon=False, ncols=2)
    _finish((left, right))


def _loop(figure: Any, results: Results) -> None:
    """Time an image by sigma on the PLIP-size model."""
    axis = figure.subplots()
    sides = {side: loop_ratio(results, side) for side in (OURS, LOW)}
    first = sides[OURS]
    assert first is not None
    sigmas = list(first["samples"])
    heights = {PUBLISHED: [first["published"]] * len(sigmas)}
    heights |= {side: [found["ours"][sigma] for sigma in sigmas] for side, found in sides.items() if found is not None}
    _grouped(axis, sigmas, heights)
    axis.set(xlabel="sigma", ylabel="seconds an image (multiplied)")
    _finish((axis,))


def _images(figure: Any, results: Results) -> None:
    """Seconds and samples of demo images, every image a point."""
    found = results["images"]["result"]
    axes = figure.subplots(1, 2, sharey=True)
    for axis, key, label in zip(axes, ("seconds", "samples"), ("seconds an image", "estimation samples an image")):
        for place, (side, (colour, marker, _)) in enumerate(zip(found["sides"], STYLES)):
            values = [row[side][key] for row in found["rows"]]
            axis.plot(values, [place] * len(values), marker, color=colour, mfc="none")
            axis.plot(float(np.mean(values)), place, marker, color=colour)
        axis.set(xscale="log", xlabel=f"{label} (filled: mean)", yticks=range(len(found["sides"])))
        axis.xaxis.set_minor_formatter("")
        axis.set_yticklabels(found["sides"], fontsize=8)
    axes[0].invert_yaxis()
    _finish(axes)


def _memory(figure: Any, results: Results) -> None:
    """Peak memory against the cap."""
    axis = figure.subplots()
    for (name, sizes), (colour, marker, line) in zip(results["memory"]["result"]["budgets"].items(), STYLES):
        peaks = [one["peak"] / 2**20 for one in sizes.values()]
        axis.plot([int(n) for n in sizes], peaks, line, color=colour, marker=marker, label=name)
    axis.set(xscale="log", ylim=(0, None), xlabel="samples (cap)", ylabel="peak memory of the process, MiB")
    axis.legend(fontsize=7, frameon=False)
    _finish((axis,))


def _growth(figure: Any, results: Results) -> None:
    """Seconds of a certificate along every axis, and of the statistics along the pixels."""
    found = results["growth"]["result"]
    axes = figure.subplots(1, 5)
    for axis, name in zip(axes, ("samples", "image side", "classes", "prompts")):
        points = found[name]
        for side, (colour, marker, line) in zip(next(iter(points.values())), STYLES):
            seconds = [point[side]["median"] for point in points.values()]
            axis.plot([int(x) for x in points], seconds, line, color=colour, marker=marker, ms=4, label=side)
        axis.set(xlabel=name, xscale="log", yscale="log")
        _plain_ticks(axis, [int(x) for x in points])
    axes[0].set_ylabel("seconds of a certificate")
    sides = results["statistics"]["result"]["sides"]
    for side, (colour, marker, line) in zip(("published loop", "certimed"), (STYLES[0], STYLES[1])):
        seconds = [point[side]["median"] for point in sides.values()]
        axes[4].plot([int(x) ** 2 for x in sides], seconds, line, color=colour, marker=marker, ms=4, label=side)
    axes[4].set(xlabel="pixels (statistics alone)", xscale="log", yscale="log")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, frameon=False, ncols=3, loc="outside upper center")
    _finish(axes)


def _grouped(axis: Any, groups: Sequence[str], heights: dict[str, list[float]]) -> None:
    width = 0.8 / len(heights)
    for place, ((name, values), (colour, _, _)) in enumerate(zip(heights.items(), STYLES)):
        where = np.arange(len(groups)) + (place - (len(heights) - 1) / 2) * width
        axis.bar(where, values, width * 0.92, color=colour, label=name)
    axis.set_xticks(range(len(groups)), groups)
    axis.legend(fontsize=8, frameon=False, ncols=len(heights), loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _plain_ticks(axis: Any, points: Sequence[int]) -> None:
    """Ticks at the points of x, and at 1, 2, 5 of every decade of y, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_xticks(points, [str(x) for x in points])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _finish(axes: Sequence[Any]) -> None:
    for axis in axes:
        axis.grid(alpha=0.25, lw=0.5)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)


FIGURES: dict[str, tuple[tuple[str, ...], float, float, Draw]] = {
    "budgets": (("study",), 9.0, 3.6, _budgets),
    "loop": (("study", "loop"), 5.5, 3.2, _loop),
    "images": (("images",), 9.0, 2.6, _images),
    "memory": (("memory",), 5.5, 3.4, _memory),
    "growth": (("growth", "statistics"), 13.0, 3.0, _growth),
}
