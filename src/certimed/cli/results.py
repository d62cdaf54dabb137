"""What a verb says about a finished run: the table, where the files are, the digest, ``summary.json``."""

from __future__ import annotations

from certimed.cli.console import harmless, say
from certimed.runs import FAILED, RunFolder


def conclude(folder: RunFolder, *, pictures: int, quiet: bool, as_json: bool, allow_code: bool) -> int:
    """Print the results of a run; returns the number of failed images."""
    records = list(folder.records())
    failed = sum(record.status == FAILED for record in records)
    if not quiet:
        say(f"{len(records) - failed} certified, {failed} failed; written to {harmless(str(folder.path))}")
        say(f"digest {folder.digest()}", style="dim")
    return failed
