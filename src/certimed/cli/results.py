"""What a verb says about a finished run: the table, where the files are, the digest, ``summary.json``."""

from __future__ import annotations

from rich.text import Text

from certimed.cli.console import harmless, say, tell
from certimed.data import IntensityReport
from certimed.data.records import Intensity
from certimed.runs import FAILED, RunFolder


def conclude(folder: RunFolder, *, pictures: int, quiet: bool, as_json: bool, allow_code: bool) -> int:
    """Print the results of a run; returns the number of failed images."""
    records = list(folder.records())
    failed = sum(record.status == FAILED for record in records)
    if not quiet:
        say_intensities(intensities(folder))
        say(f"{len(records) - failed} certified, {failed} failed; written to {harmless(str(folder.path))}")
        say(f"digest {folder.digest()}", style="dim")
    return failed


def intensities(folder: RunFolder) -> IntensityReport:
    """How the images of a run were placed in [0, 1]."""
    report = IntensityReport()
    for record in folder.records():
        if record.intensity is not None:
            report.add(record.item, Intensity.from_json(record.intensity))
    return report


def say_intensities(report: IntensityReport) -> None:
    """One line on intensities, and warnings where a person should look before trusting a result."""
    say(f"intensities: {harmless(report.line, 500)}", style="dim")
    for warning in report.warnings:
        tell(Text("warning:", "yellow"), f" {harmless(warning, 500)}")
