"""Every kind of forgery is caught, from files or by drawing again, or listed with the reason why it cannot be."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from verification.folders import ITEMS, Folder, Work
from verification.forgeries import CIRCUMSTANCES, FILES, KINDS, REDRAW, WORKS, dump

from certimed.verification import Redrawn, resample, verify

DOCS = Path(__file__).parents[2] / "docs" / "verify.md"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("runs")
    return {name: work.write(base / str(index)) for index, (name, work) in enumerate(WORKS.items())}


class Drawn:
    """The records of a work, certified again once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Work, str], dict[str, object]] = {}

    def redraw(self, folder: Path, work: Work) -> Redrawn:
        def again(item: str) -> dict[str, object]:
            key = (work, item)
            if key not in self._known:
                self._known[key] = work.record(item)
            return self._known[key]

        return resample(folder, len(ITEMS) + 1, "salt", again, now=work.manifest(), ids=ITEMS)


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return Drawn()


def test_there_are_at_least_sixty_kinds() -> None:
    caught = Counter(kind.caught_by.partition(":")[0] for kind in KINDS.values())
    assert len(KINDS) >= 60 and caught["nothing"] <= 10


@pytest.mark.parametrize("name", WORKS)
def test_honest_runs_hold(runs: dict[str, Path], drawn: Drawn, name: str) -> None:
    verdict = verify(runs[name])
    assert verdict.faults == () and verdict.failed == 1
    found = drawn.redraw(runs[name], WORKS[name])
    assert (found.level, found.exit_code, found.faults, found.changed) == ("equal", 0, (), {})


@pytest.mark.parametrize("kind", KINDS)
def test_a_forgery_is_caught(runs: dict[str, Path], drawn: Drawn, tmp_path: Path, kind: str) -> None:
    forgery = KINDS[kind]
    folder = Folder.read(shutil.copytree(runs[forgery.run], tmp_path / "run"))
    before = dump(folder)
    forgery.edit(folder)
    folder.write()
    assert dump(folder) != before
    faults = verify(folder.path).faults
    assert not any("sha256 does not match" in what and "ids_sha256" not in what for _, what in faults)
    if forgery.caught_by == FILES:
        assert faults
        return
    assert faults == ()
    found = drawn.redraw(folder.path, WORKS[forgery.run])
    if forgery.caught_by == REDRAW:
        assert (found.level, found.exit_code) == ("different", 1)
    elif forgery.caught_by == CIRCUMSTANCES:
        assert (found.level, found.exit_code) == ("consistent only", 4)
    else:
        assert found.level in ("equal", "near ties only")


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.caught_by.startswith("nothing")])
def test_what_nothing_catches_is_in_the_docs(kind: str) -> None:
    assert kind in DOCS.read_text(encoding="utf-8")
