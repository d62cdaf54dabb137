"""Runs from Python: ``certimed.run(spec, out)`` certifies a data set, and gives a run to look at."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certimed.errors import InputError
from certimed.runs import Record, RunFolder, RunSpec, execute

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from certimed.evidence import Pack
    from certimed.exports.options import Exported
    from certimed.verification import Verdict


class Run:
    """A finished or unfinished run, for analysis; made by :func:`run` and :func:`load_run`.

    Attributes:
        folder: the run folder, read only.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    def _repr_html_(self) -> str:
        from certimed.report.notebook import run_card

        try:
            return run_card(self.folder.path)
        except InputError as error:  # a run that has only begun is shown too
            return f"<p>{escape(repr(self))}: {escape(str(error))}</p>"

    @property
    def spec(self) -> RunSpec:
        """What was asked for; InputError if the manifest is malformed."""
        return RunSpec.from_dict(self.folder.manifest.get("request"))

    def records(self) -> Iterator[Record]:
        """What became of every image, in the order written; InputError names the first broken line."""
        return self.folder.records()

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each image and certificate, see :func:`certimed.exports.tables.rows`."""
        from certimed.exports.tables import rows

        return rows(self.folder)

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a data frame; MissingExtraError without the ``export`` extra."""
        from certimed.exports.tables import to_pandas

        return to_pandas(self.folder)

    def plot(self, *, by: str = "sigma", width: str = "double", native: bool = False) -> Figure:
        """Certified accuracy (of masks: the share of pixels certified) against the radius.

        Args:
            by: one panel for each ``"sigma"`` or ``"method"``.
            width: ``"single"``, ``"double"`` or a number of millimetres.
            native: radii at native resolution.

        Returns:
            a matplotlib Figure; the last line of a notebook's cell shows it, ``figure.savefig`` writes it.

        Raises:
            InputError: nothing is certified yet, an unknown argument, or radii not known at native resolution.
            MissingExtraError: matplotlib is not installed.
        """
        from certimed.report.notebook import run_figure

        return run_figure(self.folder.path, by=by, width=width, native=native)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the run as one HTML page, by default ``report.html`` in its folder; returns the page's path.

        Raises:
            InputError: nothing is certified yet, or the page cannot be written.
            MissingExtraError: jinja2 is not installed.
        """
        from certimed.attacks.page import SandwichPart
        from certimed.report.html import write_report

        target = self.folder.path / "report.html" if out is None else Path(out)
        write_report([self.folder.path], target, more=(SandwichPart,))
        return target

    def pack(self, out: str | Path, **how: Any) -> Pack:
        """Turn the run into evidence, see :func:`certimed.evidence.pack`.

        Args:
            out: new folder.
            how: ``sign``, ``pdf``, ``pictures``.
        """
        from certimed.evidence import pack

        return pack([self.folder.path], out, **how)

    def export(self, out: str | Path, kind: str | None = None, **options: Any) -> Exported:
        """Write the run for other programs, see :func:`certimed.exports.formats.export`.

        Args:
            out: a file, or for formats of single images a folder.
            kind: a name of :data:`certimed.exports.formats.FORMATS`; default: by the ending of ``out``.
            options: fields of :class:`certimed.exports.options.ExportOptions`.
        """
        from certimed.exports.formats import export
        from certimed.exports.options import ExportOptions

        return export(self.folder, out, kind, ExportOptions(**options))

    def verify(self) -> Verdict:
        """Recompute every statement, see :func:`certimed.verification.verify`."""
        from certimed.verification import verify

        return verify(self.folder.path)


def run(spec: RunSpec | None, out: str | Path, **how: Any) -> Run:
    """Certify every image of a request into a run folder.

    Args:
        spec: what to run; None with ``resume=True``: what the folder was started with.
        out: new run folder; with ``resume=True``, the one to go on with.
        how: see :func:`certimed.runs.execute`: ``resume``, ``retry_failed``, ``shard``, ``workers``, ``executor``,
            ``allow_code``, ``watcher``.

    Returns:
        the run, for analysis.

    Raises:
        InputError: a setting that does not fit, a folder that cannot be used, a changed setting, model or data set.

    >>> run(RunSpec("demo", DataSpec("slides/"), sigma=0.5), "runs/demo")  # doctest: +SKIP
    """
    return Run(execute(spec, out, **how))


def load_run(path: str | Path) -> Run:
    """Open a run folder for analysis; InputError if it is not a run folder.

    >>> load_run("runs/plip").to_pandas()  # doctest: +SKIP
    """
    return Run(RunFolder.open(path))
