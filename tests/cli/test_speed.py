"""--precision, --engine, --channels-last and --batch-size: recorded, kept to, and refused where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helper import CLASSIFIER, call, classes, masks, refused
from tiny_runs import lines, manifest, write_images, write_scans

from certimed.runs import RunFolder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 4)


def test_precision_is_recorded_on_run_and_certificates_and_a_resume_keeps_to_it(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    classes(images, folder, "--precision", "bfloat16", "--channels-last")
    recorded = manifest(folder)
    assert recorded["request"]["speed"] == {"precision": "bfloat16", "engine": "torch", "channels_last": True}
    assert recorded["provenance"]["dtype"] == "bfloat16 autocast, channels last"
    for record in RunFolder.open(folder).records():
        assert record.certificates["plain"].about.provenance.dtype == "bfloat16 autocast, channels last"
    said = refused("certify", "--resume", folder, "--allow-code", "--precision", "float32")
    assert "--precision float32 differs from the run" in said and 'started with "bfloat16"' in said


def test_a_run_in_another_engine_verifies_and_is_drawn_again_in_it(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = tmp_path / "run"
    classes(images, folder, "--engine", "openvino")
    recorded = manifest(folder)
    assert recorded["provenance"]["dtype"] == "float32 in openvino"
    assert "openvino" in recorded["provenance"]["versions"]
    assert recorded["methods"][0]["identity"] != recorded["model"]["identity"]
    again = ("--resample", 1, *CLASSIFIER, "--data", images)
    assert "certified again" in call("verify", folder, *again).text


def test_shards_and_workers_of_an_automatic_batch_size_give_the_lines_of_the_whole(
    images: Path, tmp_path: Path
) -> None:
    classes(images, tmp_path / "whole", "--batch-size", "auto")
    assert manifest(tmp_path / "whole")["local"]["batch_size"] >= 1
    classes(images, tmp_path / "plain")
    assert [line.rsplit('"sha256"', 1)[0] for line in lines(tmp_path / "whole")] == [
        line.rsplit('"sha256"', 1)[0] for line in lines(tmp_path / "plain")
    ]
    for number in (1, 2):
        classes(images, tmp_path / str(number), "--batch-size", "auto", "--shard", f"{number}/2")
    call("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "merged")
    assert lines(tmp_path / "merged") == lines(tmp_path / "whole")
    classes(images, tmp_path / "pooled", "--batch-size", "auto", "--workers", 2)
    assert lines(tmp_path / "pooled") == lines(tmp_path / "whole")


def test_masks_take_the_same_options(tmp_path: Path) -> None:
    scans, folder = write_scans(tmp_path / "scans", 2), tmp_path / "run"
    masks(scans, folder, "--precision", "bfloat16", "--batch-size", "auto")
    recorded = manifest(folder)
    assert recorded["local"]["batch_size"] >= 1
    assert recorded["provenance"]["dtype"] == "bfloat16 autocast"
    for record in RunFolder.open(folder).records():
        assert record.certificates["plain"].about.provenance.dtype == "bfloat16 autocast"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "float16"], "float16 is for GPUs"),
        (["--batch-size", "0"], "--batch-size 0 is no number of images; use 1 or more, or auto"),
        (["--precision", "bfloat16", "--engine", "onnxruntime"], "engine onnxruntime computes in float32"),
        (["--engine", "tensorrt"], "engine='tensorrt' is unknown; use torch, compile, openvino, onnxruntime"),
        (["--batch-size", "many"], "--batch-size many is no number of images"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    images: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    given = (*CLASSIFIER, "--data", images, "--n", 50, "--out", tmp_path / "run", *words)
    assert message in refused("certify", "classes", *given)
    assert not (tmp_path / "run").exists()
