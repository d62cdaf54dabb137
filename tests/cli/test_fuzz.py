"""The command line under random calls made from the table of its options: any answer but a traceback."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from cli_helper import CLASSIFIER, SEGMENTER, call, is_harmless
from tiny_runs import write_images, write_scans

from certimed.cli.request import OPTIONS, TASKS

QUICK, WHOLE = 100, 2000
ODD = ("", " ", "0", "-1", "1e999", "nan", "inf", "[red]", ":pure:", "a,b", ",", "=", "x" * 300, "../..", "1,2", "3x4",
       "0.5", "{}", "é", "--", "9" * 400, "true", "null", "[1]", "a=b,c=d", "\u202e", "fixed:10", "1/2")  # fmt: skip
LIKELY: dict[str, tuple[Any, ...]] = {
    "denoiser": ("demo", "none"), "size": ("8x8", "4x4", "1x1"), "output": ("logits", "probabilities"),
    "normalise": ("imagenet", "none", "0.5;0.5"), "device": ("cpu", "cuda", "cuda:9", "meta"),
    "data.classes": ("dark,light", "dark=night,light=day", "light,dark"), "data.split": ("test", "train"),
    "data.limit": (1, 2, 99), "data.reading.window": ("40,400", "0.5,1"), "data.reading.frame": (0, 1),
    "data.reading.axis": ("axial", "coronal"), "data.reading.slice": (0, 3), "data.reading.level": (0, 1),
    "data.reading.nan": ("zero", "refuse", "min"), "data.patches": ("grid:2", "grid:0"),
    "methods": ("plain", "zero-shot", "plain,denoised", "both", "split", "plain,plain"), "templates": ("a {}", "a"),
    "tuning.copies": (1, 5), "tuning.steps": (1, 2), "tuning.lr": (0.01, 0), "sigma": (0.25, 1, 5), "n0": (1, 10),
    "noise": ("grid", "float32"), "alpha": (0.001, 0.5), "seed": (0, 7, 2**70), "space": ("input", "native"),
    "budget": ("fixed:20", "grid:0,0.25@100", "betting:0.1", "planned:5%", "looks:10,20", "pixels:60,100/0.01"),
    "target.bound": ("one-sided", "two-sided", "best"), "target.taus": ("0.75", "0.6,0.75", "0.5"),
    "target.correction": ("holm", "bonferroni"), "target.empty": ("one", "zero", "skip"),
    "speed.precision": ("float32", "bfloat16", "float16"), "speed.engine": ("torch", "tensorrt"),
    "batch_size": (1, 7, "auto"),
}  # fmt: skip
"""By field: values that a person would try."""
MORE = (("--n", 30), ("--shard", "1/2"), ("--shard", "3/2"), ("--retry-failed",), ("--quiet",), ("--json",),
        ("--dry-run",), ("--progress", "plain"), ("--progress", "x"), ("--protocol", "x"), ("--executor", "x"),
        ("--address", "x"), ("--resume", "nowhere"), ("--config", "nowhere.yaml"))  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("fuzz")
    write_images(base / "images", 2)
    write_scans(base / "scans", 1, size=4)
    return base


def words_of(draw: random.Random, place: Path, number: int) -> list[Any]:
    """One call: a few options of the verb, now and then of the other one, with likely and with odd values."""
    verb = draw.choice(list(TASKS))
    model = CLASSIFIER if verb == "classes" else SEGMENTER
    words = ["certify", verb, *model, "--data", place / ("images" if verb == "classes" else "scans")]
    words += ["--out", place / f"run-{number}"] if draw.random() < 0.9 else []
    for option in draw.sample(OPTIONS, draw.randint(0, 5)):
        if option.field in ("model", "data.path") or (verb not in option.verbs and draw.random() < 0.9):
            continue
        if option.type is bool:
            words.append(option.flag)
        else:
            values = ODD if draw.random() < 0.3 else LIKELY.get(option.field, ODD)
            words += [option.flag, draw.choice(values)]
    if "--budget" not in words:
        words += ["--n", draw.choice((20, 60))]
    for more in draw.sample(MORE, draw.choice((0, 0, 0, 1, 2))):
        words += more
    return words


def attack(place: Path, numbers: range) -> dict[int, int]:
    """Call after call; returns how often each exit code came."""
    codes: dict[int, int] = {}
    for number in numbers:
        words = words_of(random.Random(number), place, number)
        said = call(*words, code=None)  # a traceback fails, naming the words
        codes[said.code] = codes.get(said.code, 0) + 1
        assert said.code in (0, 2, 3), (number, words, said.text)
        assert is_harmless(said.out) and is_harmless(said.err), (number, words)
        if said.code == 2:
            assert "rror" in said.err, (number, words, said.err)
    return codes


def test_a_hundred_calls(place: Path) -> None:
    codes = attack(place, range(QUICK))
    assert codes[0] > 5 and codes[2] > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_calls(place: Path) -> None:
    attack(place, range(QUICK, WHOLE))
