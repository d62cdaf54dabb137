"""File, class and group names that attack a terminal: harmless where shown, unchanged where recorded."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_classifiers import FEW, MODULE, place  # noqa: F401
from typer.testing import CliRunner

from certimed.cli.app import app
from certimed.cli.console import printable

ESCAPES = "\x1b[31mred\x1b]0;title\x07"
BIDI = "\u202egnp.exe\u2066"
NAMES = (
    ESCAPES, BIDI, "a\nb\rc", "two\u2028lines", "[bold red]x[/] [link=http://evil]y[/]", "<script>alert(1)</script>",
    "z" * 200, "с" + "ovid", "\udcff\udcfe", "\u200bnone", "'; rm -rf ~ #", "=1+1",
)  # fmt: skip


def is_harmless(text):
    return all(char == "\n" or unicodedata.category(char)[0] != "C" for char in text) and "\u2028" not in text


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_is_harmless_and_short(name):
    shown = printable(name * 50)
    assert is_harmless(shown)
    assert "\n" not in shown
    assert len(shown.replace("\\[", "[")) <= 200


def test_a_run_over_hostile_names(place):  # noqa: F811
    (place / "my_models.py").write_text(MODULE)
    folder = place / "hostile"
    for kind, level in ((f"dark {ESCAPES}", 40), (f"light {BIDI}", 210)):
        (folder / kind).mkdir(parents=True)
        for index, name in enumerate(NAMES):
            path = folder / kind / f"{name.replace('/', '|')}{index}.png"
            Image.fromarray(np.full((8, 8), level, np.uint8)).save(path)
            if index % 4 == 0:
                path.write_bytes(b"broken\x1b[2J")
    model = ("--model", "python:my_models:bare", "--allow-code", "--size", "8x8", "--data", str(folder))
    said = [raw("certify", *model, *FEW, code=3), raw("certify", "--resume", "run", *model, *FEW[:-2], code=3)]
    said += [raw("verify", "run"), raw("verify", "run", "--resample", 9, *model)]
    said += [raw("certify", *model, *FEW[:-1], "other", "--classes", f"dark{BIDI},[bold]x[/]", code=2)]
    assert all(is_harmless(text) for text in said)
    assert "[bold]x" in said[-1].replace("\n", "")
    written = Path("run/certificates.jsonl").read_text(encoding="ascii")
    items = {json.loads(line)["item"] for line in written.splitlines()}
    assert len(items) == 2 * len(NAMES)
    assert any(ESCAPES in item for item in items)
    assert any(BIDI in item for item in items)
    assert BIDI in json.loads(Path("run/run.json").read_text(encoding="ascii"))["classes"][1]
    Path("run/certificates.jsonl").write_text(written.replace("0.25", "0.26"))
    assert is_harmless(raw("verify", "run", code=1))


def raw(*arguments, code=0):
    """What a terminal would get."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.output
