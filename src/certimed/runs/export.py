"""A run as a table: CSV, Parquet, pandas, and the format that existing analysis scripts of the field read."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from certimed.errors import InputError, require
from certimed.integrity import strict_json
from certimed.runs.folder import CERTIFICATES, RunFolder

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

FORMATS = ("csv", "parquet", "cohen")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

CLASS_COLUMNS = (
    "item", "method", "status", "reason", "label", "label_name", "prediction", "prediction_name", "abstained",
    "correct", "radius", "p_lower", "q_upper", "top_count", "n0", "n", "budget", "looks", "stopped", "alpha", "sigma",
    "bound", "scope", "space", "native_radius", "clean", "counts", "proved_at", "seconds",
)  # fmt: skip
MASK_COLUMNS = (
    "item", "method", "status", "reason", "group", "share_certified", "radius", "tau", "threshold", "pixels",
    "num_classes", "n0", "n", "budget", "stopped", "alpha", "sigma", "correction", "k_fwer", "scope", "space",
    "native_radius", "seconds",
)  # fmt: skip


class LoadedRun:
    """A finished or unfinished run, for analysis; made by :func:`load_run`.

    Attributes:
        folder: the run folder, read only.
        columns: names of a row's columns; a row is one method on one image.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.columns = MASK_COLUMNS if folder.manifest.get("task") == "segment" else CLASS_COLUMNS

    def __repr__(self) -> str:
        return f"LoadedRun({str(self.folder.path)!r})"

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each image and method (failed images: one row, method None), in the order written.

        Raises:
            InputError: names the first broken line.
        """
        current = {number for number, _ in self.folder.status().values()}
        seconds = self.folder.timings()
        names = self.folder.manifest.get("classes")
        names = [str(name) for name in names] if isinstance(names, list) else []
        for number, line in self.folder.lines():
            if number not in current:
                continue
            where = f"{self.folder.path / CERTIFICATES} line {number}"
            data = strict_json(line, where)
            try:
                certificates = data["certificates"] or {None: {}}
                for method, certificate in certificates.items():
                    row = _class_row if self.columns is CLASS_COLUMNS else _mask_row
                    made = row(data, method, certificate, names) | {"seconds": seconds.get(data["item"])}
                    yield {name: _plain(value) for name, value in made.items()}
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                raise InputError(f"{where} lacks what the table needs ({error!r:.80}); run: certimed verify") from error

    def _repr_html_(self) -> str:
        from certimed.report.notebook import run_card

        try:
            return run_card(self.folder.path)
        except InputError as error:  # a run that has only begun is shown too
            return f"<p>{escape(repr(self))}: {escape(str(error))}</p>"

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

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a data frame; MissingExtraError without the ``export`` extra."""
        frame = require("pandas", "export").DataFrame(list(self.rows()), columns=list(self.columns))
        result: pandas.DataFrame = frame
        return result

    def to_csv(self, path: str | Path) -> int:
        """Write CSV with a header; returns the number of rows.

        Text that a spreadsheet would take for a formula is prefixed by an apostrophe.
        """

        def write(stream: IO[str]) -> int:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(self.columns)
            count = 0
            for row in self.rows():
                writer.writerow([_cell(row.get(name)) for name in self.columns])
                count += 1
            return count

        return _written(Path(path), write)

    def to_parquet(self, path: str | Path) -> int:
        """Write Parquet; returns the number of rows. MissingExtraError without the ``export`` extra."""
        require("pyarrow", "export")
        frame = self.to_pandas()
        target = Path(path)
        try:
            frame.to_parquet(target, index=False)
        except OSError as error:
            raise InputError(f"{target} cannot be written ({error.strerror})") from error
        return len(frame)

    def to_cohen(self, path: str | Path, method: str | None = None) -> int:
        """Write the tab-separated log of Cohen et al. (ICML 2019): idx, label, predict, radius, correct, time.

        In this format alone an abstention is class -1. Failed and unlabelled images have no place in it and are left
        out; idx is the position among all images of the run, so a gap shows where one is missing.

        Args:
            path: the file.
            method: which method; may be left out where the run has one.

        Raises:
            InputError: a segmentation run, or a method that is not in the run.
        """
        if self.columns is not CLASS_COLUMNS:
            raise InputError(f"{self.folder.path} is a segmentation run; the cohen format is for classification")
        chosen = self._method(method)

        def write(stream: IO[str]) -> int:
            stream.write("idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
            count, positions = 0, {_plain(item): index for index, item in enumerate(self.folder.status())}
            for row in self.rows():
                if row["method"] != chosen or row["label"] is None:
                    continue
                answer = -1 if row["abstained"] else row["prediction"]
                spent = row["seconds"] or 0.0
                clock = f"{int(spent // 3600)}:{int(spent // 60 % 60):02d}:{spent % 60:09.6f}"
                stream.write(
                    f"{positions[row['item']]}\t{row['label']}\t{answer}\t{_down(row['radius'])}\t"
                    f"{int(answer == row['label'])}\t{clock}\n"
                )
                count += 1
            return count

        return _written(Path(path), write)

    def _method(self, method: str | None) -> str:
        found = sorted({row["method"] for row in self.rows() if row["method"] is not None})
        if method is None and len(found) == 1:
            return str(found[0])
        if method not in found:
            raise InputError(f"--method {method} must be one of {', '.join(found) or 'none: nothing was certified'}")
        return str(method)


def load_run(path: str | Path) -> LoadedRun:
    """Open a run folder for analysis; raises InputError if it is none.

    >>> load_run("runs/plip").to_pandas()  # doctest: +SKIP
    """
    return LoadedRun(RunFolder.open(path))


def _class_row(data: dict[str, Any], method: str | None, cert: dict[str, Any], names: list[str]) -> dict[str, Any]:
    _check_kinds(data, {"label": (int, type(None))})
    label, abstained = data["label"], cert.get("abstained")
    row = {"item": data["item"], "method": method, "status": data["status"], "reason": data["reason"], "label": label}
    row["label_name"] = _name(names, label)
    if method is None:
        return row
    _check_kinds(cert, {"abstained": bool, "prediction": int, "radius": (int, float)})
    row |= {name: cert[name] for name in CLASS_COLUMNS if name in cert and name not in row}
    row["prediction_name"] = _name(names, cert["prediction"])
    row["correct"] = None if label is None else bool(not abstained and cert["prediction"] == label)
    row["top_count"] = cert["counts"][cert["prediction"]]
    row["counts"], row["proved_at"] = json.dumps(cert["counts"]), json.dumps(cert["proved_at"])
    row["native_radius"] = _native_radius(cert)
    row["clean"] = data["clean"].get(method)
    return row


def _mask_row(data: dict[str, Any], method: str | None, cert: dict[str, Any], names: list[str]) -> dict[str, Any]:
    row = {"item": data["item"], "method": method, "status": data["status"], "reason": data["reason"]}
    row["group"] = data["group"]
    if method is not None:
        row |= {name: cert[name] for name in MASK_COLUMNS if name in cert and name not in row}
        row["pixels"] = math.prod(cert["shape"][1:])
        row["native_radius"] = _native_radius(cert)
    return row


def _native_radius(cert: dict[str, Any]) -> float | None:
    """See ``ClassCertificate.native_radius``."""
    native = {"radius": cert["radius"]} if cert["space"] == "native" else cert.get("native")
    if native is None:
        return None
    _check_kinds(native, {"radius": (int, float)})
    return float(native["radius"])


def _check_kinds(data: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Values that tables compute with must be of their kind; KeyError or TypeError names the first that is not."""
    for name, kind in kinds.items():
        value = data[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{name} is {value!r:.30}")


def _name(names: list[str], index: int | None) -> str | None:
    return names[index] if index is not None and 0 <= index < len(names) else None


def _plain(value: Any) -> Any:
    """Text that every format can hold: file names may carry bytes that are no UTF-8."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _cell(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value


def _down(radius: float) -> str:
    """Seven digits, never more than the radius."""
    text = f"{radius:.7f}"
    return text if float(text) <= radius else f"{max(0.0, radius - 1e-7):.7f}"


def _written(path: Path, write: Callable[[IO[str]], int]) -> int:
    """Write a whole file or none."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            count = write(stream)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return count
