"""Result tables for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set

from rich.box import SIMPLE_HEAD
from rich.table import Table

from certimed.certificates import PROMPT_FROZEN
from certimed.cli.console import out
from certimed.metrics import PUBLISHED_RADII, ClassificationSummary, summarise
from certimed.runs import CERTIFIED, ClassRecord, MaskRecord


def summarise_records(
    records: Sequence[ClassRecord], method: str, radii: Sequence[float] = PUBLISHED_RADII
) -> ClassificationSummary:
    """Summary of one method over the certified images of a run; labels count only if every image has one."""
    done = [record for record in records if record.status == CERTIFIED]
    labels = [record.label for record in done]
    known = [label for label in labels if label is not None]
    return summarise(
        [record.certificates[method] for record in done],
        known if len(known) == len(labels) else None,
        [record.clean[method] for record in done],
        radii=radii,
    )


def print_accuracy(
    runs: Mapping[tuple[float, str], Sequence[ClassRecord]], radii: Sequence[float] = PUBLISHED_RADII
) -> None:
    """Print the certified accuracy of runs, keyed by (sigma, method), with what a reader needs beside it."""
    summaries = {key: summarise_records(records, key[1], radii) for key, records in runs.items()}
    labelled = all(summary.certified_accuracy is not None for summary in summaries.values())
    out.print("certified accuracy (%) at radius r:" if labelled else "images certified (%) at radius r, no labels:")
    frozen = {key for key, records in runs.items() if _is_frozen(records, key[1])}
    out.print(_accuracy_table(summaries, radii, labelled, frozen))
    if _adaptive(summaries):
        out.print(_why_samples_ended(summaries.values()), highlight=False)
    out.print(_LEGEND, style="dim", highlight=False)


def _adaptive(summaries: Mapping[tuple[float, str], ClassificationSummary]) -> bool:
    """Whether images got as many samples as they needed, instead of one fixed number."""
    return any(stop != "cap reached" for summary in summaries.values() for stop in summary.stops)


def _why_samples_ended(summaries: Collection[ClassificationSummary]) -> str:
    """Mean samples and stops, over all certificates."""
    mean = sum(summary.mean_samples for summary in summaries) / len(summaries)
    stops: Counter[str] = Counter()
    for summary in summaries:
        stops.update({stop: share / len(summaries) for stop, share in summary.stops.items()})
    why = ", ".join(f"{stop} {100 * share:.0f} %" for stop, share in stops.most_common())
    return f"samples (n): {mean:,.0f} an image on average; {why}"


def _accuracy_table(
    summaries: Mapping[tuple[float, str], ClassificationSummary],
    radii: Sequence[float],
    labelled: bool,
    frozen: Set[tuple[float, str]],
) -> Table:
    shown = _informative(summaries.values(), radii)
    table = Table(box=SIMPLE_HEAD, padding=0)
    samples = ["n"] if _adaptive(summaries) else []
    for heading in ("sigma", "prompt", "clean", "noisy", *(f"r={r:g}" for r in shown), "few", "unst.", *samples):
        table.add_column(heading, justify="left" if heading == "prompt" else "right", no_wrap=True)
    previous = None
    for (sigma, method), summary in summaries.items():
        curve = summary.certified_accuracy if labelled else summary.certified_share
        if previous not in (None, sigma):
            table.add_section()
        previous = sigma
        table.add_row(
            f"{sigma:g}",
            method + "*" * ((sigma, method) in frozen),
            _percent(summary.clean_accuracy),
            _percent(summary.noisy_accuracy),
            *(_percent(value) for value, r in zip(curve or (), summary.radii) if r in shown),
            _percent(summary.too_few_samples),
            _percent(summary.unstable),
            *(f"{summary.mean_samples:.0f}" for _ in samples),
        )
    return table


def _is_frozen(records: Sequence[ClassRecord], method: str) -> bool:
    return any(method in r.certificates and r.certificates[method].scope == PROMPT_FROZEN for r in records)


def _informative(summaries: Iterable[ClassificationSummary], radii: Sequence[float]) -> list[float]:
    """Radii up to the largest one at which anything is certified, thinned to what fits a terminal."""
    largest = max((r for s in summaries for r, share in zip(s.radii, s.certified_share) if share), default=0.0)
    shown = [r for r in radii if r <= largest] or [radii[0]]
    step = -(-len(shown) // _MOST_RADII)
    return shown[::step]


def print_native(records: Sequence[ClassRecord | MaskRecord], method: str) -> None:
    """Say what the radii of a run are worth at native resolution, where its certificates know."""
    found = [r.certificates[method] for r in records if method in r.certificates]
    known = [c.native for c in found if c.native is not None and c.radius > 0]
    if all(native.norm == 1 for native in known):
        return
    norms, radii = [native.norm for native in known], sorted(native.radius for native in known)
    span = f"{min(norms):.4g}" if min(norms) == max(norms) else f"{min(norms):.4g} to {max(norms):.4g}"
    out.print(
        f"native resolution: preparing an image multiplies no L2 norm by more than {span}, so radii there are those at "
        f"the model's input divided by it (on the certificates); {method}: median {radii[len(radii) // 2]:.4g}",
        style="dim",
        highlight=False,
    )


_MOST_RADII = 6
_LEGEND = (
    "r: L2 in [0, 1] units of the certified space. clean, noisy: base model without and with one draw of noise (not "
    "certified). few, unst.: abstained for want of samples, or because noise changes the answer. *: proved for the "
    "prompt frozen at x, not for the pipeline that tuned it on the image."
)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"
