"""What a run would be: its images, methods and time here, from a pilot on a few of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from certimed.cli.console import harmless, say, tell

if TYPE_CHECKING:
    from certimed.runs import Job


def rehearse(job: Job, *, talk: Callable[..., None] = say) -> None:
    """Read every image, certify a few, and tell what the run would be."""
    from certimed.cli.results import say_intensities
    from certimed.data import IntensityReport
    from certimed.errors import ImageError
    from certimed.runs.forecast import forecast
    from certimed.threads import check

    for sentence in check():
        tell(sentence, style="dim")
    spec = job.spec
    talk(
        f"{len(job.dataset)} images of {harmless(job.dataset.source)}, {len(job.class_names)} classes "
        f"({harmless(', '.join(job.class_names))}); model {harmless(spec.model)}; methods "
        f"{', '.join(entry.name for entry in job.entries)}"
    )
    for sentence in encoder_passes(job):
        talk(sentence)
    for sentence in job.warnings:
        tell(harmless(sentence, 1000))
    report = IntensityReport()
    for index in range(len(job.dataset)):
        try:
            image = job.dataset.load(index)
        except ImageError as error:
            tell(Text("unreadable", "red"), f" {harmless(job.dataset.items[index].id)}: {harmless(str(error), 1000)}")
        else:
            report.add(image.id, image.intensity_record)
    say_intensities(report, talk)
    found = forecast(job)
    talk(
        f"{1 / found.copy_seconds:,.0f} noisy copies/s here, {found.copies:,.0f} of them an image (budget "
        f"{spec.budget}, as {found.piloted} of the images went), {found.overhead:.2f} s an image besides; "
        f"{found.images} images take about {_clock(found.seconds)} in one process"
    )


def encoder_passes(job: Job) -> Iterator[str]:
    """Which methods share their encoder passes, where some have passes of their own."""
    streams: dict[str, list[str]] = {}
    for method in job.engine.methods:
        streams.setdefault(method.stream, []).append(method.name)
    if len(streams) > 1:
        each = "; ".join(harmless(", ".join(names)) for names in streams.values())
        yield f"{len(streams)} encoders, each with passes of its own over the same noise, for: {each}"


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min {rest % 60} s"
