"""``certimed certify --task segment``: budgets, several taus, workers; and verifying such runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from certimed.cli.app import app
from certimed.runs import MaskSettings, RunFolder, load_run
from certimed.segmenters import SmallUNet
from certimed.verification import verify

BUDGET = "pixels:60,90,150/0.05"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        SmallUNet(1, 2, (4, 8), patch=2).save(folder)
    return folder


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    root = tmp_path_factory.mktemp("discs")
    for name in ("images", "masks"):
        (root / name).mkdir()
    rows, columns = np.mgrid[:16, :16]
    for number in range(3):
        disc = (rows - 8) ** 2 + (columns - 8) ** 2 < (3 + number) ** 2
        Image.fromarray((disc * 200).astype(np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray((disc * 255).astype(np.uint8)).save(root / "masks" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def certify(unet, discs):
    def call(folder, *words, to="--out"):
        return run("certify", "--task", "segment", "--model", f"unet:{unet}", "--data", discs, "--sigma", 0.05,
                   to, folder, *words)  # fmt: skip

    return call


def lines(path):
    return sorted((path / "certificates.jsonl").read_text().splitlines())


def test_fixed_n_is_the_default_and_says_nothing_of_budgets(certify, tmp_path):
    assert certify(tmp_path / "a").exit_code == 0
    assert certify(tmp_path / "b", "--budget", "fixed:100").exit_code == 0
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    for record in RunFolder.open(tmp_path / "a").mask_records():
        certificate = record.certificates["plain"]
        assert certificate.n == 100 and certificate.budget is None
    assert '"looks"' not in lines(tmp_path / "a")[0]
    assert verify(tmp_path / "a").ok


def test_budget_several_taus_and_workers(certify, tmp_path):
    words = ("--budget", BUDGET, "--tau", "0.6,0.75", "--pictures", 1)
    result = certify(tmp_path / "run", *words)
    assert result.exit_code == 0, result.output
    assert "samples: estimation samples an image, mean" in " ".join(result.output.split())
    verdict = verify(tmp_path / "run")
    assert verdict.ok and verdict.certificates == 6, verdict.faults
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["methods"] == ["plain tau 0.6", "plain tau 0.75"]
    assert (manifest["settings"]["budget"], manifest["settings"]["n"]) == (BUDGET, 150)
    for record in RunFolder.open(tmp_path / "run").mask_records():
        assert [c.tau for c in record.certificates.values()] == [0.6, 0.75]
        assert set(record.scores) == set(record.certificates)
        assert all(c.budget == BUDGET and c.alpha < 0.000501 for c in record.certificates.values())
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == 2
    rows = list(load_run(tmp_path / "run").rows())
    assert {row["budget"] for row in rows} == {BUDGET} and all(row["stopped"] for row in rows)

    spread = certify(tmp_path / "spread", *words, "--workers", 2)
    assert spread.exit_code == 0, spread.output
    assert lines(tmp_path / "spread") == lines(tmp_path / "run")
    assert RunFolder.open(tmp_path / "spread").digest() == RunFolder.open(tmp_path / "run").digest()
    assert verify(tmp_path / "spread").ok


def test_workers_resume_exactly_the_missing_images(certify, tmp_path):
    assert certify(tmp_path / "run", "--budget", BUDGET).exit_code == 0
    whole, path = lines(tmp_path / "run"), tmp_path / "run" / "certificates.jsonl"
    first = path.read_text().splitlines(keepends=True)[0]
    path.write_text(first)
    refused = certify(tmp_path / "run", to="--resume")
    assert refused.exit_code == 2 and "settings.budget was" in " ".join(refused.output.split())
    result = certify(tmp_path / "run", "--budget", BUDGET, "--workers", 2, to="--resume")
    assert result.exit_code == 0, result.output
    assert lines(tmp_path / "run") == whole and path.read_text().startswith(first)


@pytest.mark.slow
def test_ray_gives_the_same_masks(certify, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed (extra: ray)")
    assert certify(tmp_path / "run", "--budget", BUDGET).exit_code == 0
    result = certify(tmp_path / "ray", "--budget", BUDGET, "--executor", "ray", "--workers", 2)
    assert result.exit_code == 0, result.output
    assert lines(tmp_path / "ray") == lines(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--n", 100, "--budget", BUDGET), "give one of them"),
        (("--budget", "grid"), "use e.g. pixels:100,200,400/0.01"),
        (("--budget", "pixels:10,20"), "too early"),
        (("--tau", "0.75,0.75"), "names one twice"),
        (("--tau", "0.75,a"), "is no list of numbers"),
        (("--tau", "0.75,0.3"), "tau=0.3"),
        (("--n", 0), "n=0"),
    ],
)
def test_impossible_requests_are_one_sentence(certify, tmp_path, words, sentence):
    result = certify(tmp_path / "run", *words)
    assert result.exit_code == 2 and sentence in " ".join(result.output.split()), result.output


@pytest.fixture(scope="module")
def two_taus(certify, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert certify(folder, "--budget", BUDGET, "--tau", "0.6,0.75").exit_code == 0
    return folder


def test_an_honest_run_is_redrawn_exactly(two_taus, unet, discs):
    words = ("verify", two_taus, "--resample", 2, "--salt", "s", "--data", discs, "--model")
    result = run(*words, f"unet:{unet}")
    assert result.exit_code == 0, result.output
    assert "4 of 4 masks are equal" in result.output and result.output.count("tau 0.75: equal") == 2
    refused = run("verify", two_taus, "--resample", 1, "--data", discs)
    assert refused.exit_code == 2 and "--model is missing" in refused.output


def test_another_model_is_refused(two_taus, discs, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        SmallUNet(1, 2, (4, 8), patch=2).save(tmp_path / "other")
    result = run("verify", two_taus, "--resample", 1, "--data", discs, "--model", f"unet:{tmp_path / 'other'}")
    assert result.exit_code == 2 and "the model is not the one of this run" in " ".join(result.output.split())


def test_invented_counts_are_false(certify, unet, discs, tmp_path, monkeypatch):
    """A forger computes everything from counts that nobody saw: arithmetic holds, the model disagrees."""
    from certimed.segmentation import SmoothedSegmenter

    modes = SmoothedSegmenter._modes

    def invented(self, image, mask, key, sizes, *rest, **options):
        return sizes[0], np.full(tuple(mask.shape), sizes[0], dtype=np.int16)

    with monkeypatch.context() as patch:
        patch.setattr(SmoothedSegmenter, "_modes", lambda self, *given: 1 - modes(self, *given))
        patch.setattr(SmoothedSegmenter, "_agreement", invented)
        assert certify(tmp_path / "run").exit_code == 0
    assert verify(tmp_path / "run").ok
    result = run("verify", tmp_path / "run", "--resample", 1, "--data", discs, "--model", f"unet:{unet}")
    assert result.exit_code == 1 and "false" in result.output and "pixels differ" in result.output


def test_names_of_taus_are_exact():
    assert MaskSettings(0.25).names(["plain"]) == ["plain"]
    several = MaskSettings(0.25, tau=(0.75, 0.75 + 1e-12)).names(["plain", "denoised"])
    assert len(set(several)) == 4 and several[0] == "plain tau 0.75"
