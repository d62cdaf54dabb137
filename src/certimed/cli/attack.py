"""``certimed attack``: how near the certificates of a run are to the truth, from the other side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from certimed.cli.console import EXIT_FALSE, harmless, one_sentence_errors, say, tell
from certimed.errors import InputError

if TYPE_CHECKING:
    from certimed.attacks import Attack, Sandwich

HELP = """Attack the certificates of a run: certificate <= truth <= attack, image by image.

SmoothAdv (Salman et al. 2019) goes through denoiser, prompt and tuning; fresh noise decides whether it has succeeded.
First just inside each certified radius, where it must fail, then bisecting for the smallest perturbation that changes
the answer. Outcomes are added to the run folder, and the same command goes on after a stop. Exit code 1: attacks inside
end-to-end certificates succeeded more often than alpha allows.

[bold]Examples[/]

  certimed attack runs/plip --images 50

  certimed attack runs/plip --images 50 --steps 100 --restarts 3

  certimed attack runs/lungs --radius 0.1,0.2 --methods plain
"""


def attack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    radius: Annotated[
        str | None, typer.Option(help="Attack at these L2 radii alone, by commas; default: bisect.")
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Methods to attack, by commas; default: all.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Attack so many images; default: all.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps at each radius.")] = 20,
    copies: Annotated[int, typer.Option(min=1, help="Noisy copies in each gradient.")] = 32,
    restarts: Annotated[int, typer.Option(min=1, help="Starting points at each radius.")] = 1,
    bisections: Annotated[int, typer.Option(min=0, help="Bisections of the radius.")] = 8,
    reach: Annotated[float, typer.Option(help="Largest radius, in sigma or certified radii.")] = 3.0,
    n: Annotated[int, typer.Option("--n", min=1, help="Fresh samples of each PREDICT.")] = 1000,
    alpha: Annotated[float, typer.Option(help="Failure probability of all PREDICTs of an attack.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of starting points and noise.")] = 0,
    clip: Annotated[bool, typer.Option("--clip", help="Keep perturbed images in [0, 1].")] = False,
    search: Annotated[str, typer.Option(help="gradient, or grid: all around, for up to 3 settings.")] = "gradient",
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Consent to run a python: model.")] = False,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.attacks import AttackSpec
        from certimed.attacks import attack as make

        spec = AttackSpec(
            radii=() if radius is None else _numbers(radius),
            steps=steps,
            copies=copies,
            restarts=restarts,
            bisections=bisections,
            reach=reach,
            n=n,
            alpha=alpha,
            seed=seed,
            clip=clip,
            search=search,
        )
        chosen = None if methods is None else [name.strip() for name in methods.split(",")]
        found = make(run, spec, methods=chosen, images=images, allow_code=allow_code, watcher=_Lines())
        say(_table(found))
        for sentence in found.findings():
            say(Text("inside a certificate", "bold red"), f": {harmless(sentence, 400)}")
        if any(row["contradicted"] for row in found.summary()):
            raise typer.Exit(EXIT_FALSE)


class _Lines:
    """A line for each attack."""

    def start(self, attacks: int) -> None:
        """See :class:`certimed.attacks.AttackWatcher`."""
        self.total, self.done = attacks, 0
        tell(f"{attacks} certificates to attack")

    def attack(self, attack: Attack) -> None:
        """See :class:`certimed.attacks.AttackWatcher`."""
        self.done += 1
        norm = attack.broken_norm
        what = "not broken" if norm is None else f"broken at {norm:.4g}"
        where = harmless(f"{attack.item} {attack.label}", 80)
        tell(f"{self.done} of {self.total}: {where}: certified {attack.radius:.4g}, {what}")

    def note(self, sentence: str) -> None:
        """See :class:`certimed.attacks.AttackWatcher`."""
        tell(harmless(sentence, 1000))


_COLUMNS: tuple[tuple[str, str], ...] = (
    ("label", "method"),
    ("attacked", "attacked"),
    ("broken", "broken"),
    ("ratio_median", "broken / certified, median"),
    ("inside", "inside"),
    ("abstained_inside", "unanswered inside"),
    ("base_median", "base model, median"),
)


def _table(found: Sandwich) -> Table:
    table = Table(box=None)
    for _, head in _COLUMNS:
        table.add_column(head, justify="left" if head == "method" else "right")
    for row in found.summary():
        table.add_row(*(_shown(row[name]) for name, _ in _COLUMNS))
    return table


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else harmless(str(value))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--radius {text} is not a list of numbers; write e.g. --radius 0.1,0.25") from error
