"""What is said beside results: classes that the smoothed answer has lost, with true masks or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_helper import masks
from PIL import Image
from tiny_runs import write_scans

from certimed.report.notes import lost_classes
from certimed.report.series import series
from certimed.runs import RunFolder, merge


@pytest.fixture(scope="module")
def specks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark images with a pixel just lighter than one half: found without noise, never certified."""
    folder = tmp_path_factory.mktemp("specks") / "specks"
    folder.mkdir()
    for number in range(2):
        pixels = np.full((8, 8), 20, np.uint8)
        pixels[3, 3 + number] = 129
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_a_class_that_noise_takes_away_is_named_without_true_masks(specks: Path, tmp_path: Path) -> None:
    said = masks(specks, tmp_path / "run", "--classes", "background,vessel", "--sigma", "0.1", "--n", 60)
    text = "Not one pixel is certified as vessel in any image by plain at sigma 0.1, though the network finds 2"
    assert text in said.text
    # Known to merged parts too, as it lies beside their lines.
    for part in ("1/2", "2/2"):
        words = ("--classes", "background,vessel", "--sigma", "0.1", "--n", 60, "--shard", part)
        masks(specks, tmp_path / part[0], *words)
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "whole")
    assert text in lost_classes(series([tmp_path / "whole"]))[0]
    assert RunFolder.open(tmp_path / "whole").clean_pixels() == {"0.png": (63, 1), "1.png": (63, 1)}


def test_a_class_that_stays_is_not_named(tmp_path: Path) -> None:
    scans = write_scans(tmp_path / "scans", 2)
    assert "Not one pixel" not in masks(scans / "images", tmp_path / "run", "--classes", "dark,light").text


def test_noisy_scores_are_means_over_several_copies(tmp_path: Path) -> None:
    """Half of the pixels lie at the threshold, so that single copies differ, and no mean of four is one of theirs."""
    for name in ("images", "masks"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    grey = np.where(np.arange(16) < 8, 128, 20).astype(np.uint8).reshape(4, 4)
    Image.fromarray(grey).save(tmp_path / "scans" / "images" / "0.png")
    Image.fromarray((grey > 100).astype(np.uint8)).save(tmp_path / "scans" / "masks" / "0.png")
    masks(tmp_path / "scans", tmp_path / "run", "--sigma", "0.1", "--n", 60)
    (record,) = RunFolder.open(tmp_path / "run").records()
    accuracy = record.scores["plain"].whole["accuracy (noisy)"]
    assert 0.5 < accuracy < 1
    assert (64 * accuracy).is_integer() and not (16 * accuracy).is_integer()
