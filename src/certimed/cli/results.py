"""What a verb says about a finished run: the table, where the files are, the digest, ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice

from rich.text import Text

from certimed.cli.console import EXIT_SOME_FAILED, harmless, say, tell
from certimed.cli.tables import MOST_RADII, print_table
from certimed.data import IntensityReport
from certimed.data.records import Intensity
from certimed.exports.summary import write_summary
from certimed.report.kind_tables import table
from certimed.report.series import by_kind, series
from certimed.runs import FAILED, MaskJob, RunFolder


def conclude(folder: RunFolder, *, quiet: bool, as_json: bool) -> int:
    """Write ``summary.json`` and print the results; returns the number of failed images.

    Args:
        folder: the run.
        quiet: print nothing.
        as_json: print the summary as JSON, and nothing else.
    """
    failed = sum(status == FAILED for _, status in folder.status().values())
    found = write_summary(folder, EXIT_SOME_FAILED if failed else 0)
    if as_json:
        print(json.dumps(found, allow_nan=False))
    elif not quiet:
        if found["certified"]:
            how = {"most": MOST_RADII, "places": 0} if folder.task == "classes" else {}
            for own in by_kind(series([folder.path])):
                print_table(table(own, **how))
        say_intensities(intensities(folder))
        say(f"{found['certified']} certified, {failed} failed; written to {harmless(str(folder.path))}")
        say(f"digest {found['digest']}", style="dim")
    return failed


def intensities(folder: RunFolder) -> IntensityReport:
    """How the images of a run were placed in [0, 1]."""
    report = IntensityReport()
    for record in folder.records():
        if record.intensity is not None:
            report.add(record.item, Intensity.from_json(record.intensity))
    return report


def say_intensities(report: IntensityReport, talk: Callable[..., None] = say) -> None:
    """One line on intensities, and warnings where a person should look before trusting a result."""
    talk(f"intensities: {harmless(report.line, 500)}", style="dim")
    for warning in report.warnings:
        tell(Text("warning:", "yellow"), f" {harmless(warning, 500)}")


def draw(job: MaskJob, folder: RunFolder, count: int) -> None:
    """Draw the first ``count`` certified images into ``pictures/``: one panel an image and tau, every method in it."""
    if count == 0:
        return
    from certimed.report.figures import draw_record

    for record in islice((record for record in folder.records() if record.certificates), count):
        draw_record(job, record, folder.path / "pictures")
