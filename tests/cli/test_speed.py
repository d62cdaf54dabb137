"""--precision, --channels-last and --batch-size: recorded, kept to, and refused where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from certimed import throughput
from certimed.assets import asset
from certimed.cli import classify
from certimed.cli.app import app
from certimed.errors import InputError
from certimed.runs import MaskSettings, RunFolder, merge
from certimed.segmenters.small_unet import SmallUNet
from certimed.verification import verify

DEMO = ["certify", "--model", "demo", "--data", str(asset("demo_images")), "--limit", "3", "--n0", "10", "--n", "30"]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code not in (0, 1) or "error" in result.output
    return " ".join(result.output.split())


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def lines(folder: Path) -> list[str]:
    return sorted((folder / "certificates.jsonl").read_text().splitlines())


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Answers of the next probes; without one a probe fails the test."""
    answers: list[int] = []
    for module in (classify, __import__("certimed.runs.segmentation", fromlist=["_"])):
        monkeypatch.setattr(module, "probe_batch_size", lambda *_, **__: answers.pop(0))
    return answers


def test_precision_is_recorded_on_run_and_certificates_and_a_resume_keeps_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(*DEMO, "--precision", "bfloat16", "--channels-last", "--out", str(folder))
    recorded = manifest(folder)
    assert recorded["settings"]["acceleration"] == {"precision": "bfloat16", "compile": False, "channels_last": True}
    assert recorded["provenance"]["dtype"] == "bfloat16 autocast, channels last"
    for record in RunFolder.open(folder).records():
        assert record.certificates["none"].provenance.dtype == "bfloat16 autocast, channels last"
    assert verify(folder).ok
    message = refused(*DEMO, "--channels-last", "--resume", str(folder))
    assert 'settings.acceleration.precision was "bfloat16" and is now "float32"' in message


def test_auto_is_probed_once_recorded_and_kept_by_a_resume(tmp_path: Path, probes: list[int]) -> None:
    probes += [7]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(*DEMO, "--batch-size", "auto", "--out", str(whole))
    assert manifest(whole)["settings"]["batch_size"] == "auto"
    assert manifest(whole)["local"] == {"batch_size": 7}
    cut.mkdir()
    (cut / "run.json").write_text((whole / "run.json").read_text())
    kept = (whole / "certificates.jsonl").read_text().splitlines(keepends=True)
    (cut / "certificates.jsonl").write_text("".join(kept[:1]))
    run(*DEMO, "--batch-size", "auto", "--resume", str(cut))  # no probe is left: another one would fail
    assert lines(cut) == lines(whole)
    assert verify(cut).ok
    assert classify.Settings.recorded(manifest(cut)).batch_size == 7


def test_shards_and_workers_of_an_auto_run_give_the_lines_of_the_whole(tmp_path: Path, probes: list[int]) -> None:
    probes += [16, 16, 5, 16]
    whole, pooled = tmp_path / "whole", tmp_path / "pooled"
    parts = [tmp_path / "part-1", tmp_path / "part-2"]
    run(*DEMO, "--batch-size", "auto", "--out", str(whole))
    for number, part in enumerate(parts, 1):
        run(*DEMO, "--batch-size", "auto", "--shard", f"{number}/2", "--out", str(part))
    merge(parts, tmp_path / "merged")
    assert lines(tmp_path / "merged") == lines(whole)
    run(*DEMO, "--batch-size", "auto", "--workers", "2", "--out", str(pooled))
    assert lines(pooled) == lines(whole)


def test_masks_take_the_same_options(tmp_path: Path, probes: list[int]) -> None:
    probes += [3]
    network, data, folder = tmp_path / "net", tmp_path / "images", tmp_path / "run"
    SmallUNet(1, 2, (4, 8), 2).save(network)
    data.mkdir()
    values = np.random.default_rng(0).integers(0, 255, (2, 16, 16), dtype=np.uint8)
    for index, pixels in enumerate(values):
        Image.fromarray(pixels).save(data / f"{index}.png")
    words = ["certify", "--task", "segment", "--model", str(network), "--output", "logits", "--data", str(data)]
    run(*words, "--precision", "bfloat16", "--batch-size", "auto", "--out", str(folder))
    recorded = manifest(folder)
    assert recorded["local"] == {"batch_size": 3}
    assert recorded["provenance"]["dtype"] == "bfloat16 autocast"
    for record in RunFolder.open(folder).mask_records():
        assert record.certificates["plain"].provenance.dtype == "bfloat16 autocast"
    assert verify(folder).ok


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "float16"], "float16 is for GPUs"),
        (["--precision", "int8"], "--precision int8 is unknown; use one of float32, bfloat16, float16"),
        (["--batch-size", "0"], "--batch-size 0 is no number of images; use 1 or more, or auto"),
        (["--batch-size", "many"], "--batch-size many is no number of images"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tmp_path: Path, words: list[str], message: str) -> None:
    assert message in refused(*DEMO, *words, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_unsettled_batch_size_does_not_reach_the_engine() -> None:
    with pytest.raises(InputError, match="probe_batch_size"):
        throughput.settled(MaskSettings(0.25, batch_size="auto").batch_size)
