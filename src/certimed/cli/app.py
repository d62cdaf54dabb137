"""The ``certimed`` command. Verbs import what they need when they run, so that ``--help`` is instant."""

from __future__ import annotations

from typing import Annotated

import typer

from certimed import __version__
from certimed.cli import (
    attack,
    certify,
    compare,
    demo,
    export,
    figure,
    merge,
    pack,
    plan,
    report,
    reproduce,
    train,
    tune,
    verify,
)
from certimed.cli.stopping import orderly_stop, quiet_libraries
from certimed.threads import use_threads

app = typer.Typer(
    name="certimed",
    help="Provable robustness for medical-imaging models: a prediction, a radius below which no perturbation changes "
    "it, and a statement of exactly what was proved, with its failure probability.",
    epilog="Start with: certimed demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command(help=demo.HELP)(demo.demo)
app.command(help=tune.HELP)(tune.tune)
app.command(help=verify.HELP)(verify.verify)
app.command(help=attack.HELP)(attack.attack)
app.command(help=compare.HELP)(compare.compare)
app.command(help=merge.HELP)(merge.merge)
app.command(help=export.HELP)(export.export)
app.command(help=report.HELP)(report.report)
app.command(help=pack.HELP)(pack.pack)
app.command(help=train.CONVERT_HELP)(train.convert)
app.add_typer(certify.app, name="certify")
app.add_typer(plan.app, name="plan")
app.add_typer(figure.app, name="figure")
app.add_typer(reproduce.app, name="reproduce")
app.add_typer(train.app, name="train")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"certimed {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print version.")
    ] = False,
) -> None:
    """Options of the command as a whole."""


def main() -> None:
    """Entry point of the ``certimed`` script."""
    use_threads()  # before any verb imports PyTorch
    quiet_libraries()
    with orderly_stop():
        app()
