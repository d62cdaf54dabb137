"""Result tables for the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection

from rich.box import SIMPLE_HEAD
from rich.table import Table

from certimed.cli.console import say
from certimed.metrics import ClassificationSummary, MaskSummary
from certimed.studies import Study

_MOST_RADII = 6
_LEGEND = (
    "r: L2 in [0, 1] units of the certified space. clean, noisy: base model without and with one draw of noise (not "
    "certified). few, unst.: abstained for want of samples, or because noise changes the answer. *: proved for the "
    "prompt frozen at x, not for the pipeline that tuned it on the image."
)
_INTERVALS = " Below each share: its 95 % interval over images."
_MASK_LEGEND = (
    "radius: L2 in [0, 1] units. clean, noisy: Dice of the network without and with one draw of noise (not certified). "
    "publ.: published Dice, over certified pixels, no bound under attack. guaranteed: lowest and highest Dice any "
    "attack below the radius can reach. IoU: guaranteed. abst.: pixels abstained. samples: estimation samples an image, "
    "mean."
)


def print_study(study: Study, *, intervals: bool = False) -> None:
    """Print the table of runs, with what a reader needs beside it.

    Args:
        study: one run or several.
        intervals: also print the interval over images below each certified accuracy.
    """
    if study.masks:
        say("certified segmentation, Dice and IoU as foreground means:" if study.dice else "certified segmentation:")
        say(_mask_table(study))
        say(_MASK_LEGEND, style="dim")
        return
    summaries = study.accuracies.values()
    labelled = all(summary.certified_accuracy is not None for summary in summaries)
    say("certified accuracy (%) at radius r:" if labelled else "images certified (%) at radius r, no labels:")
    say(_accuracy_table(study, labelled, intervals and labelled))
    if _adaptive(summaries):
        say(_why_samples_ended(summaries))
    say(_LEGEND + (_INTERVALS if intervals and labelled else ""), style="dim")


def print_native(study: Study) -> None:
    """Say what the radii of the first method are worth at native resolution, where its certificates know."""
    every = [one for label in study.folders for record in study.records(label) for one in record.certificates.values()]
    known = [one for one in every if one.method == every[0].method and one.native is not None and one.radius > 0]
    if all(one.native.norm == 1 for one in known):
        return
    norms, radii = [one.native.norm for one in known], sorted(one.native.radius for one in known)
    span = f"{min(norms):.4g}" if min(norms) == max(norms) else f"{min(norms):.4g} to {max(norms):.4g}"
    say(
        f"native resolution: preparing an image multiplies no L2 norm by more than {span}, so radii there are those at "
        f"the model's input divided by it (on the certificates); {every[0].method}: median "
        f"{radii[len(radii) // 2]:.4g}",
        style="dim",
    )


def _table(headings: Collection[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    return table


def _accuracy_table(study: Study, labelled: bool, intervals: bool) -> Table:
    summaries = study.accuracies
    shown = _informative(study)
    samples = ["n"] if _adaptive(summaries.values()) else []
    radii = [f"r={study.radii[index]:g}" for index in shown]
    table = _table(["sigma", "method", "clean", "noisy", *radii, "few", "unst.", *samples])
    previous = None
    for (sigma, method), summary in summaries.items():
        curve = (summary.certified_accuracy if labelled else summary.certified_share) or ()
        below = [f"\n{100 * low:.0f}-{100 * high:.0f}" if intervals else "" for low, high in summary.intervals or ()]
        if previous not in (None, sigma):
            table.add_section()
        previous = sigma
        table.add_row(
            f"{sigma:g}",
            method + "*" * (not study.covers_pipeline(method)),
            _percent(summary.clean_accuracy),
            _percent(summary.noisy_accuracy),
            *(_percent(curve[index]) + (below[index] if below else "") for index in shown),
            _percent(summary.too_few_samples),
            _percent(summary.unstable),
            *(f"{summary.mean_samples:.0f}" for _ in samples),
        )
    return table


def _informative(study: Study) -> list[int]:
    """Positions of radii up to the largest one at which anything is certified, thinned to what fits a terminal."""
    every = study.accuracies.values()
    reached = [index for index in range(len(study.radii)) if any(one.certified_share[index] for one in every)] or [0]
    return list(range(0, max(reached) + 1, -(-(max(reached) + 1) // _MOST_RADII)))


def _adaptive(summaries: Collection[ClassificationSummary]) -> bool:
    """Whether images got as many samples as they needed, instead of one fixed number."""
    return any(kind != "cap reached" for summary in summaries for kind in summary.stops)


def _why_samples_ended(summaries: Collection[ClassificationSummary]) -> str:
    """Mean samples and stops, over all certificates."""
    mean = sum(summary.mean_samples for summary in summaries) / len(summaries)
    stops: Counter[str] = Counter()
    for summary in summaries:
        stops.update({stop: share / len(summaries) for stop, share in summary.stops.items()})
    why = ", ".join(f"{stop} {100 * share:.0f} %" for stop, share in stops.most_common())
    return f"samples (n): {mean:,.0f} an image on average; {why}"


def _mask_table(study: Study) -> Table:
    table = _table(["sigma", "radius", "method", "clean", "noisy", "publ.", "guaranteed", "IoU", "abst.", "samples"])
    for number, (label, spec) in enumerate(study.specs.items()):
        if number:
            table.add_section()
        records = [record for record in study.records(label) if record.certificates]
        for name in dict.fromkeys(one for record in records for one in record.certificates):
            made = [record.certificates[name] for record in records]
            abstained = 1 - sum(one.share_certified for one in made) / len(made)
            cells = _dice_cells(study.dice.get((name, spec.sigma, made[0].radius)))
            samples = sum(one.n for one in made) / len(made)
            table.add_row(
                f"{spec.sigma:g}", f"{made[0].radius:.3f}", name, *cells, f"{100 * abstained:.0f} %", f"{samples:.0f}"
            )
    return table


def _dice_cells(summary: MaskSummary | None) -> list[str]:
    if summary is None:
        return ["-"] * 5

    def mean(metric: str) -> str:
        value = summary["foreground mean", metric].mean
        return "-" if math.isnan(value) else f"{value:.3f}"

    plain = [mean(metric) for metric in ("Dice (clean)", "Dice (noisy)", "certified Dice (published)")]
    return [*plain, f"{mean('guaranteed Dice')}-{mean('best-case Dice')}", mean("guaranteed IoU")]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"
