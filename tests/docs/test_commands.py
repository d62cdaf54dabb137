"""Every command and every Python block of the README and the documentation runs, in order, page by page.

What differs between what is written and what is run is in the tables of ``docs_pages``; blocks that cannot run say why
in the page's source, and are counted and printed here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from docs_pages import COMMAND_LANGUAGES, PAGES, ROOT, Block, blocks, certimed_words, smaller, steps, with_added
from docs_workspace import furnish
from typer.main import get_command
from typer.testing import CliRunner

from certimed.cli.app import app

# Pages whose commands take seconds; the others run in `make test-slow`.
QUICK = {
    "README.md",
    "certificate.md",
    "classifier.md",
    "prompts.md",
    "quickstart.md",
    "runs.md",
    "settings.md",
    "vlm.md",
}
# How many blocks carry "not run", the generated performance.md apart: one more has to be meant.
NOT_RUN = 11
# Options of other programs that the text speaks of.
FOREIGN = {"--zeroshot", "--report", "--with"}
# Names a Python block takes for granted: the reader's own model and images.
SETUP = {
    "model": lambda x: torch.stack([x.mean((1, 2, 3)) - 0.5, 0.5 - x.mean((1, 2, 3))], 1),
    "image": torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)),
}


def runnable(page: Path) -> list[Block]:
    """Commands and code, and files that they read."""
    shown = (block for block in blocks(page) if block.language in COMMAND_LANGUAGES or block.title is not None)
    return [block for block in shown if block.reason is None]


def pages() -> list[object]:
    """Pages with something to run; those that take long are marked slow."""
    found = [page for page in PAGES if runnable(page)]
    return [pytest.param(p, id=p.name, marks=() if p.name in QUICK else pytest.mark.slow) for p in found]


def run_certimed(words: list[str], where: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{where}: certimed {' '.join(words)}\n{result.output}"
    return result.output


def run_shell(command: str, where: str) -> str:
    """A line or script for bash, with this environment's ``certimed`` and ``python`` first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "SLURM_ARRAY_TASK_ID": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, f"{where}: {command}\n{done.stdout}{done.stderr}"
    return done.stdout


def same(shown: str, printed: str) -> bool:
    """Whether the output shown is in what was printed, ``...`` standing for anything."""
    squeezed = [" ".join(text.split()) for text in (shown, printed)]
    return re.search(re.escape(squeezed[0]).replace(re.escape("..."), ".*?"), squeezed[1]) is not None


def run_block(block: Block, namespace: dict[str, object], models: Path) -> None:
    if block.title is not None:
        Path(block.title).write_text(smaller(block.text, models), encoding="utf-8")
        if block.language == "bash":
            run_shell(f"bash {block.title} && bash {block.title}", str(block))
        return
    if block.language == "python":
        exec(compile(smaller(block.text, models), str(block), "exec"), namespace)
        return
    for step in steps(block):
        command = smaller(step.command, models)
        words = certimed_words(command)
        printed = run_certimed(with_added(words), str(block)) if words else run_shell(command, str(block))
        assert not step.shown or same(step.shown, printed), f"{block}: shows\n{step.shown}\nprints\n{printed}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", pages())
def test_commands_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    todo = runnable(page)
    furnish(tmp_path, "\n".join(block.text for block in todo))
    namespace: dict[str, object] = {"__name__": "__main__", **SETUP}
    for block in todo:
        run_block(block, namespace, tmp_path / "MODELS")


def test_blocks_that_are_not_run_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = [block for page in PAGES for block in blocks(page) if block.reason is not None]
    with capsys.disabled():
        print("".join(f"\nnot run: {block}: {block.reason}" for block in left_out))
    assert sum(block.page.name != "performance.md" for block in left_out) == NOT_RUN
    assert all(len(block.reason or "") > 20 for block in left_out)


def verbs() -> dict[str, set[str]]:
    """Options of every verb, sub-verbs included, as ``certimed --help`` knows them."""

    def walk(command: object, name: str) -> dict[str, set[str]]:
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}  # type: ignore[attr-defined]
        found = {name: options}
        for word, sub in getattr(command, "commands", {}).items():
            below = walk(sub, f"{name} {word}".strip())
            found |= below
            if name:  # options before the verb are its own: certimed certify --resume RUN
                found[name] = found[name].union(*below.values())
        return found

    return walk(get_command(app), "")


def test_options_named_in_the_text_exist() -> None:
    """Inline commands, and options named by themselves, are those of the program."""
    known = verbs()
    every = set().union(*known.values())
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for span in re.findall(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", text):
            words = span.split()
            if words[0] == "certimed":
                verb = next((v for v in (" ".join(words[1:3]), " ".join(words[1:2])) if v in known), None)
                options = known.get(verb or "", set())
                bad = verb is None or any(w.startswith("--") and w.partition("=")[0] not in options for w in words)
            else:
                bad = words[0].startswith("--") and words[0].split("|")[0] not in every | FOREIGN
            if bad:
                wrong.append(f"{page.name}: {span}")
    assert not wrong


def test_output_shown_is_compared() -> None:
    assert same("radius 0.5 needs ... agreeing", "x\nradius 0.5   needs n >= 301,\nall agreeing\ny")
    assert not same("radius 0.6", "radius 0.5")
