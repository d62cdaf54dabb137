"""What every study shares: where data, models and results are, its options, and its section of a document."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certimed.errors import InputError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_DATA = os.environ.get("CERTIMED_DATA")


@dataclass(frozen=True)
class Places:
    """Where data, models and results are; the demo set needs none of the first two."""

    data: Path = Path(_DATA) if _DATA else ROOT.parent / "shared" / "data"
    models: Path = ROOT / "studies"
    results: Path = RESULTS


def places_parser(about: str | None) -> argparse.ArgumentParser:
    """A parser with ``--data``, ``--models`` and ``--results``."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "models", "results"):
        parser.add_argument(f"--{name}", type=Path, default=getattr(Places, name))
    return parser


def numbers(text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    return tuple(map(float, text.split(",")))


def report_command(
    about: str | None,
    sets: Sequence[str],
    options: Callable[[argparse.ArgumentParser], None],
    certify: Callable[[argparse.Namespace, Places], tuple[str, dict[str, Any]]],
    report: Callable[[Path, list[dict[str, Any]]], None],
    pattern: str,
) -> None:
    """The command of a study: ``--set`` certifies one set and keeps its results, ``--report`` writes the section.

    Args:
        about: help.
        sets: names of the sets, in the order of the report.
        options: adds the study's own options.
        certify: gives the name of the result and the result.
        report: writes the section from the results there are.
        pattern: of the results' files, with ``{}`` for the set; a set's variants (``SET_n1000``) follow it.
    """
    parser = places_parser(about)
    parser.add_argument("--set", choices=sets, dest="name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, nargs="?", const=ROOT / "docs" / "results.md")
    options(parser)
    given = parser.parse_args()
    places = Places(given.data, given.models, given.results)
    if given.name is None and given.report is None:
        parser.error("give --set or --report")
    if given.name is not None:
        name, found = certify(given, places)
        print(f"written: {write_result(places.results / f'{name}.json', found)}")
    if given.report is not None:
        names = [pattern.format(one) for name in sets for one in (name, f"{name}_n*")]
        known = [path for name in names for path in sorted(places.results.glob(name))]
        report(given.report, [json.loads(path.read_text(encoding="utf-8")) for path in known])
        print(f"written: {given.report}")


def write_result(path: Path, found: dict[str, Any]) -> Path:
    """Keep a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return path


def replace_section(path: Path, name: str, text: str) -> None:
    """Put ``text`` between ``<!-- name: begin -->`` and ``<!-- name: end -->``, or at the end where there are none.

    Sections made by a program stand between two markers; the rest of the document is written by hand.

    Raises:
        InputError: one marker without the other.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{begin}\n{text}\n{end}"
    before = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    if (begin in before) != (end in before):
        raise InputError(f"{path} has only one of the markers {begin} and {end}; restore the other")
    if begin in before:
        head, _, rest = before.partition(begin)
        after = head + section + rest.partition(end)[2]
    else:
        after = f"{before.rstrip()}\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(after, encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"
