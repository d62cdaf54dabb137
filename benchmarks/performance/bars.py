"""The bars the package holds itself to, judged from the results: measured value, spread, met or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.performance import classification, processes
from benchmarks.performance.engines import BARE_LOW
from benchmarks.performance.replay import BETTING, GRID, GRID_ONE, PLANNED

Results = dict[str, dict[str, Any]]
LOW, OURS = classification.LOW, classification.OURS
FAST, FAST_EXACT = classification.FAST, classification.FAST_EXACT


@dataclass(frozen=True)
class Bar:
    """One line of the table.

    Attributes:
        bar: what is asked for.
        measured, spread: in words.
        met: None where it was not measured.
    """

    bar: str
    measured: str
    spread: str = ""
    met: bool | None = None


def bars(results: Results) -> list[Bar]:
    """All bars; those whose section is missing are listed as not measured."""
    return [bar for make in MAKERS for bar in make(results)]


def section(results: Results, name: str) -> dict[str, Any] | None:
    """The result of a section, or None."""
    content = results.get(name)
    return None if content is None else content["result"]


def _decision(results: Results) -> list[Bar]:
    asked = "decision at r = sigma: mean samples <= 1/20 of fixed n, >= 99 % equal decisions"
    found = section(results, "study")
    if found is None:
        return [Bar(asked, "not measured")]
    made = []
    for title in (BETTING, GRID_ONE):
        one = found["all"][title]
        met = one["samples"] <= found["n"] / 20 and one["same decision"] >= 0.99
        made.append(
            Bar(
                f"{asked} ({title})",
                f"{one['samples']:.0f} samples (1/{found['n'] / one['samples']:.0f}), {one['same decision']:.2%} equal",
                _sample_spread(found, title),
                met,
            )
        )
    return made


def _default(results: Results) -> list[Bar]:
    asked = "default budget: mean samples <= 1/2 of fixed n, certified accuracy at every reported radius within 1 point"
    found = section(results, "study")
    if found is None:
        return [Bar(asked, "not measured")]
    one = found["all"][GRID]
    met = one["samples"] <= found["n"] / 2 and one["accuracy difference"] <= 0.01
    measured = (
        f"{one['samples']:.0f} samples ({one['samples'] / found['n']:.2f} n), largest difference "
        f"{100 * one['accuracy difference']:.2f} points"
    )
    worst = max(group[GRID]["accuracy difference"] for group in found["groups"].values())
    spread = f"{_sample_spread(found, GRID)}; {100 * worst:.2f} points on one set and sigma alone"
    return [Bar(asked, measured, spread, met)]


def _planned(results: Results) -> list[Bar]:
    asked = "Planned(5 %): mean radius loss <= 5 % on every set and sigma alone; samples reported"
    found = section(results, "study")
    if found is None:
        return [Bar(asked, "not measured")]
    one = found["all"][PLANNED]
    worst = max(group[PLANNED]["radius loss"] for group in found["groups"].values())
    met = worst <= 0.05
    loss = f"radius loss {one['radius loss']:.2%}, {worst:.2%} on the worst"
    measured = f"{one['samples']:.0f} samples ({one['samples'] / found['n']:.2f} n), {loss}"
    return [Bar(asked, measured, _sample_spread(found, PLANNED), met)]


def _sample_spread(found: dict[str, Any], title: str) -> str:
    each = [group[title]["samples"] for group in found["groups"].values()]
    return f"{min(each):.0f} to {max(each):.0f} over sets and sigmas"


def _bfloat16(results: Results) -> list[Bar]:
    asked = "bfloat16 on a CPU that has it: >= 1.8 x float32 on the PLIP-size model"
    found = section(results, "loop")
    if found is None:
        return [Bar(asked, "not measured")]
    one = found["bfloat16 over float32"]
    flags = results["loop"]["machine"]["bfloat16"]
    made = [
        Bar(
            asked,
            f"{one['median']:.2f} x ({', '.join(flags) or 'no such instructions'})",
            between(one, "x"),
            one["median"] >= 1.8,
        )
    ]
    verdicts = section(results, "verdicts")
    if verdicts is not None:
        parts = ", ".join(f"{name} {share:.1%}" for name, share in verdicts["different"].items())
        text = f"{parts}; {verdicts['counts moved']:.2%} of samples change class"
        made.append(
            Bar("verdicts that differ between float32 and bfloat16, reported", text, f"{verdicts['verdicts']} verdicts")
        )
    return made


def _shares(results: Results) -> list[Bar]:
    made = []
    for name, model, needed in (("loop", "PLIP-size model", 0.97), ("demo", "demo model", 0.90)):
        found = section(results, name)
        shares = None if found is None else found.get("forward share", found)[OURS]
        asked = f"time inside forward passes, {model}: >= {needed:.0%}"
        made.append(
            Bar(asked, "not measured")
            if shares is None
            else Bar(
                asked,
                f"{shares['median']:.1%}",
                f"{shares['low']:.1%} to {shares['high']:.1%}",
                shares["median"] >= needed,
            )
        )
    return made


def loop_ratio(results: Results, side: str, over: str = "speed-up a sample") -> dict[str, Any] | None:
    """Published over our time an image at equal alpha and reported radii, averaged over the published sigmas.

    Measured: seconds a sample of both loops. Multiplied: the samples an image needs, n for the published loop, those of
    the default budget on the studies' images for ours; n0 for both.
    """
    loop, study = section(results, "loop"), section(results, "study")
    if loop is None or study is None:
        return None
    n, n0 = study["n"], study["n0"]
    samples = {sigma: n0 + one[GRID]["samples"] for sigma, one in study["sigmas"].items()}
    fewer = (n0 + n) * len(samples) / sum(samples.values())
    if side not in loop.get(over, {}):
        return None
    faster = loop[over][side]
    each = loop["seconds a sample"]
    return {
        "ratio": {key: fewer * faster[key] for key in ("median", "low", "high")},
        "fewer": fewer,
        "published": (n0 + n) * each[classification.PUBLISHED]["median"],
        "ours": {sigma: count * each[side]["median"] for sigma, count in samples.items()},
        "samples": samples,
    }


BEST = "speed-up over its best"
_AGAINST = {"speed-up a sample": "as it runs", "speed-up": "as it runs", BEST: "at its best (bfloat16 autocast)"}


def _judged(asked: str, ratio: dict[str, Any] | None, needed: float, digits: int = 1, of: str = "") -> Bar:
    """A bar of a speed-up, judged by its median."""
    if ratio is None:
        return Bar(asked, "not measured")
    return Bar(asked, f"{ratio['median']:.{digits}f} x{of}", between(ratio, "x"), ratio["median"] >= needed)


def _loop(results: Results) -> list[Bar]:
    made = []
    for over, side, needed in (
        ("speed-up a sample", OURS, 5),
        ("speed-up a sample", FAST_EXACT, 5),
        (BEST, FAST, 5),
        ("speed-up a sample", FAST, 20),
    ):
        asked = (
            f"published classification loop {_AGAINST[over]}, PLIP size, equal alpha and reported radii: >= {needed} x "
            f"less time an image ({side})"
        )
        found = loop_ratio(results, side, over)
        made.append(_judged(asked, None if found is None else found["ratio"], needed))
    return made


def _engines(results: Results) -> list[Bar]:
    found, made = section(results, "engines"), []
    for name, needed in zip(found["models"] if found else (), (1.3, 1.8, 1.4)):
        ratios = {side: one for side, one in found["models"][name]["over bfloat16"].items() if side != BARE_LOW}  # type: ignore[index]
        side = max(ratios, key=lambda one: float(ratios[one]["median"]))
        asked = f"{name}: best engine >= {needed} x PyTorch's bfloat16 autocast, forward passes alone"
        made.append(_judged(asked, ratios[side], needed, 2, f" ({side})"))
    return made or [Bar("best engine against PyTorch's bfloat16 autocast", "not measured")]


def _segmentation(results: Results) -> list[Bar]:
    found = section(results, "segmentation")
    made = []
    for over, side, needed in (
        ("speed-up", OURS, 2),
        ("speed-up", FAST_EXACT, 2),
        (BEST, FAST, 2.5),
        ("speed-up", FAST, 8),
    ):
        asked = (
            f"published segmentation loop {_AGAINST[over]}, U-Net + denoiser, same n: >= {needed} x less time an image "
            f"({side})"
        )
        made.append(_judged(asked, (found or {}).get(over, {}).get(side), needed, 2))
    alone = section(results, "statistics")
    asked = "its statistics at 512x512 alone: >= 1 000 x less"
    if alone is None:
        return [*made, Bar(asked, "not measured")]
    side, one = list(alone["sides"].items())[-1]
    ratio = one["speed-up"]
    measured = f"{ratio['median']:,.0f} x at {side}x{side}".replace(",", " ")
    return [*made, Bar(asked, measured, between(ratio, "x", 0), ratio["median"] >= 1000 and one["equal masks"])]


def _art(results: Results) -> list[Bar]:
    asked = "adversarial-robustness-toolbox, same classifier, alpha and n = 10 000: "
    found = section(results, "art")
    if found is None or "missing" in found:
        return [Bar(asked + ">= 5 x less time, peak memory <= 1/10", "not measured")]
    seconds, memory = found["seconds"], found["bytes"]
    made = []
    for side, needed in (
        (processes.SAME_N, 2),
        (processes.SAME_N_FAST, 2),
        (processes.DEFAULT, 5),
        (processes.FAST, 8),
    ):
        if side not in seconds:
            continue
        ratios = [a / b for a, b in zip(seconds["ART"]["values"], seconds[side]["values"])]
        middle = seconds["ART"]["median"] / seconds[side]["median"]
        made.append(
            Bar(
                f"{asked}>= {needed} x less time ({side})",
                f"{middle:.1f} x",
                f"{min(ratios):.1f} to {max(ratios):.1f} x",
                middle >= needed,
            )
        )
    side = list(seconds)[-1]
    share = memory[side]["median"] / memory["ART"]["median"]
    text = f"{_mib(memory[side]['median'])} against {_mib(memory['ART']['median'])}"
    return [*made, Bar(asked + "peak memory <= 1/10", text, f"1/{1 / share:.0f}" if share else "", share <= 0.1)]


def _memory(results: Results) -> list[Bar]:
    asked = "peak memory flat in n for every budget"
    found = section(results, "memory")
    if found is None:
        return [Bar(asked, "not measured")]
    ours = {name: sizes for name, sizes in found["budgets"].items() if not name.startswith("published")}
    peaks = {name: [one["peak"] for one in sizes.values()] for name, sizes in ours.items()}
    growth = {name: each[-1] - each[0] for name, each in peaks.items()}
    worst = max(growth, key=lambda name: growth[name])
    text = f"largest growth {_mib(growth[worst])} ({worst}) for {_times(ours[worst])} x the samples"
    return [Bar(asked, text, f"{len(ours)} budgets", growth[worst] < FLAT)]


FLAT = 16 * 2**20
"""Growth of a process that still counts as flat: what the memory allocator may keep."""


def _times(sizes: dict[str, Any]) -> str:
    numbers = [int(n) for n in sizes]
    return f"{numbers[-1] / numbers[0]:.0f}"


def between(values: dict[str, Any], unit: str, digits: int = 2) -> str:
    """``1.9 to 2.1 x``."""
    return f"{values['low']:.{digits}f} to {values['high']:.{digits}f} {unit}"


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


MAKERS: tuple[Callable[[Results], list[Bar]], ...] = (
    _decision,
    _default,
    _planned,
    _bfloat16,
    _shares,
    _engines,
    _loop,
    _segmentation,
    _art,
    _memory,
)
