"""The table of rooms in docs/architecture.md is what the imports of the source say, and arrows go one way."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "certimed"
PACKAGE = "certimed"
ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
Import = tuple[str, str]
"""A module and what it imports: a module, or a package where the name is not a module of it."""


def modules(source: Path) -> dict[str, Path]:
    """Name to file; a package's name is its ``__init__``'s."""
    found = {}
    for path in source.rglob("*.py"):
        parts = (PACKAGE, *path.relative_to(source).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(source: Path) -> list[Import]:
    """All imports of certimed by certimed, in functions too; those for type checkers alone are left out."""
    return [*_imports(source, modules(source))]


def _imports(source: Path, known: Mapping[str, Path]) -> Iterator[Import]:
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        hidden = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if id(node) in hidden:
                continue
            if isinstance(node, ast.Import):
                yield from ((name, one.name) for one in node.names if one.name.split(".")[0] == PACKAGE)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: relative import in line {node.lineno}; name the module in full"
                home = node.module or ""
                if home.split(".")[0] == PACKAGE:
                    within = (f"{home}.{one.name}" for one in node.names)
                    yield from ((name, one if one in known else home) for one in within)


def room(module: str) -> str:
    """The first part of a module's name below the package."""
    return module.split(".")[1] if "." in module else module


def arrows(source: Path) -> set[Import]:
    """From room to room."""
    return {(room(a), room(b)) for a, b in imports(source) if room(a) != room(b)}


def circles(source: Path) -> list[list[str]]:
    """Groups of files that import each other, directly or by way of others."""
    graph: dict[str, set[str]] = {}
    for a, b in imports(source):
        graph.setdefault(a, set()).add(b)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [*graph.get(start, ())]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += graph.get(name, ())
        return seen

    reach = {name: reachable(name) for name in graph}
    groups = {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in graph if a in reach[a]}
    return [list(group) for group in sorted(groups)]


def table() -> dict[str, list[str]]:
    """Rooms of the page in their order, with what each imports."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return {name: re.findall(r"`(\w+)`", cell) for name, cell in ROW.findall(text)}


def upward(rows: Mapping[str, list[str]]) -> list[Import]:
    """Imports of a room that does not stand above."""
    order = [*rows]
    return [(a, b) for a, names in rows.items() for b in names if order.index(b) >= order.index(a)]


def test_the_table_is_what_the_source_imports() -> None:
    rows, found = table(), arrows(SOURCE)
    rooms = {room(name) for name in modules(SOURCE)}
    assert set(rows) == rooms
    order = [*rows]
    for name in rows:
        real = sorted((b for a, b in found if a == name), key=order.index)
        assert rows[name] == real, f"the row of {name} must say: {', '.join(f'`{one}`' for one in real) or 'nothing'}"


def test_arrows_go_to_rooms_above() -> None:
    assert not upward(table())


def test_no_files_import_each_other() -> None:
    assert not circles(SOURCE)


def test_nothing_but_the_command_itself_imports_the_command_line() -> None:
    assert {a for a, b in arrows(SOURCE) if b == "cli"} == {"__main__"}


def test_public_names_are_taken_from_their_homes() -> None:
    """Of ``certimed`` itself the source imports the version alone: its other names would be circles."""
    known = modules(SOURCE)
    for path in known.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
                names = [one.name for one in node.names if f"{PACKAGE}.{one.name}" not in known]
                assert names in ([], ["__version__"]), f"{path}: line {node.lineno}"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    source = tmp_path / PACKAGE
    for name, text in {
        "__init__.py": "",
        "low/__init__.py": "from certimed.low.a import x\n",
        "low/a.py": "def f():\n    from certimed.high import y\n",
        "low/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from certimed import other\n",
        "high.py": "import certimed.other\nfrom certimed.low import a\n",
        "other.py": "",
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    return source


def test_lazy_imports_count_and_those_for_type_checkers_do_not(small: Path) -> None:
    assert arrows(small) == {("low", "high"), ("high", "other"), ("high", "low")}


def test_a_circle_is_found_by_way_of_other_files(small: Path) -> None:
    assert circles(small) == [["certimed.high", "certimed.low.a"]]
    (small / "other.py").write_text("import certimed.low\n")
    imports.cache_clear()
    assert circles(small) == [["certimed.high", "certimed.low", "certimed.low.a", "certimed.other"]]


def test_an_arrow_upwards_is_found() -> None:
    assert upward({"low": ["high"], "high": ["low"], "same": ["same"]}) == [("low", "high"), ("same", "same")]
