"""``certimed pack``: runs as evidence that can be read, checked and passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli.console import harmless, one_sentence_errors, say

HELP = """Turn finished runs into evidence: one folder and one zip that anybody can check without model and data.

Test report as a page and as PDF, machine-readable statement, requests and commands to do the runs again, the log of
their verification, the runs themselves without images, and the SHA-256 of every file. (extra: pack)

[bold]Examples[/]

  certimed pack runs/plip --out evidence

  certimed pack runs/plip runs/lungs --out evidence --sign key

  certimed verify evidence --key key.pub
"""


def pack(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="Run folders.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="New folder; the zip is written beside it.")],
    sign: Annotated[
        Path | None, typer.Option(help="Ed25519 private key that signs the pack (PEM or OpenSSH, no passphrase).")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Write the test report as PDF too.")] = True,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Small pictures of the images in page.html.")
    ] = False,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.evidence import pack as write

        made = write(runs, out, sign=sign, pdf=pdf, pictures=pictures)
        signed = "signed" if made.signed else "not signed"
        say(f"{made.files} files, {signed}, in {harmless(str(made.folder))} and {harmless(str(made.archive))}")
        say(f"root {made.root}")
        say(f"Note the root elsewhere; check by: certimed verify {harmless(str(made.folder))}")
