"""File, class and group names that attack a terminal: harmless where shown, unchanged where recorded."""

import json

import numpy as np
import pytest
from cli_helper import CLASSIFIER, call, is_harmless, refused
from PIL import Image

from certimed.cli.console import harmless

ESCAPES = "\x1b[31mred\x1b]0;title\x07"
BIDI = "\u202egnp.exe\u2066"
MARKUP = "[red]x[bold]y[/] [on blue]z[/] :pure: :smile:"
NAMES = (
    ESCAPES, BIDI, "a\nb\rc", "two\u2028lines", MARKUP, "<script>alert(1)</script>", "z" * 200, "с" + "ovid",
    "\udcff\udcfe", "\u200bnone", "'; rm -rf ~ #", "=1+1",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_is_harmless_and_short(name):
    shown = harmless(name * 50)
    assert is_harmless(shown)
    assert "\n" not in shown
    assert len(shown) <= 200


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for kind, level in ((f"dark {ESCAPES}", 40), (f"light {MARKUP}".replace("/", "|"), 210)):
        (folder / kind).mkdir(parents=True)
        for index, name in enumerate(NAMES):
            path = folder / kind / f"{name.replace('/', '|')}{index}.png"
            pixels = np.full((8, 8), level, np.uint8)
            pixels[0, index % 8] += index
            Image.fromarray(pixels).save(path)
            if index % 4 == 0:
                path.write_bytes(b"broken\x1b[2J")
    return folder


def test_a_run_over_hostile_names(images, tmp_path):
    run = tmp_path / "run"
    words = (*CLASSIFIER, "--data", images, "--n", 20, "--n0", 5)
    said = [
        call("certify", "classes", *words, "--out", run, code=3),
        call("certify", "--resume", run, "--allow-code", "--retry-failed", code=3),
        call("certify", "classes", *words, "--out", tmp_path / "bar", "--progress", "bar", code=3),
        call("certify", "classes", *words, "--dry-run"),
        call("plan", "classes", *words),
        call("export", run, "--out", tmp_path / "a.csv"),
    ]
    for one in said:
        assert is_harmless(one.out) and is_harmless(one.err)
    # Markup and emoji codes stand as they are, and nothing is wrapped or cut.
    assert MARKUP.replace("/", "|") in said[0].err
    assert MARKUP.replace("/", "|") in said[3].err
    written = (run / "certificates.jsonl").read_text(encoding="ascii")
    items = {json.loads(line)["item"] for line in written.splitlines()}
    assert len(items) == 2 * len(NAMES)
    assert any(ESCAPES in item for item in items) and any(BIDI in item for item in items)
    assert json.loads((run / "run.json").read_text(encoding="ascii"))["classes"][1].startswith("light [red]")


@pytest.mark.parametrize("text", [MARKUP, "[/]", "[red]", ":pure:", ESCAPES, "[[x]]", "\\[x]"])
@pytest.mark.parametrize(
    "flag", ["--model", "--data", "--budget", "--noise", "--methods", "--device", "--resume", "--config"]
)
def test_what_was_typed_is_shown_as_it_is(flag, text, tmp_path, images):
    base = {"--model": "python:tiny_models:classifier", "--data": images, "--out": tmp_path / "run"}
    base = {} if flag == "--resume" else base
    words = [word for pair in {**base, flag: text}.items() for word in pair]
    said = refused("certify", "classes", "--allow-code", *words)
    assert is_harmless(said)
    shown = harmless(text)
    assert shown in said or repr(text)[1:-1] in said, said


def test_usage_errors_show_what_was_typed():
    for words in (("certify", "[red]x[/]"), ("[red]x[/]",), ("certify", "classes", "--[red]")):
        assert "[red]" in call(*words, code=2, COLUMNS="80").text
