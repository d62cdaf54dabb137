"""The studies that certify masks and measurements together: what is read off their runs, and the pages made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models  # noqa: F401 - imported before any run so that python:tiny_models is there
from PIL import Image

from benchmarks import study_measurements, study_published
from certimed.errors import InputError
from certimed.runs import DataSpec, MeasureTarget, RunSpec
from certimed.studies import run_study


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A bright square in the dark, segmented by a threshold: the mask and its area, from the same copies."""
    place = tmp_path_factory.mktemp("study")
    images, masks = np.full((2, 16, 16), 100, np.uint8), np.zeros((2, 16, 16), np.uint8)
    images[:, 4:12, 4:12], masks[:, 4:12, 4:12] = 152, 1
    images[:, 4:12, 8:12] = 230
    np.savez(place / "set.npz", images=images, masks=masks, class_names=np.array(["background", "lesion"]))
    spec = RunSpec(
        "python:tiny_models:segmenter",
        DataSpec(str(place / "set.npz")),
        MeasureTarget(("area:lesion", "count:lesion"), (0.06,), ("count:lesion=0.5",), taus=(0.75,)),
        sigma=0.1,
    )
    study = run_study({"sigma-0.1": spec}, place / "runs", allow_code=True)
    return study_measurements.outcome(study, 0.1, ("background", "lesion"))


def test_the_interval_of_an_area_lies_inside_what_the_pixels_prove(found: dict[str, Any]) -> None:
    row = found["methods"]["plain"]
    area = row["measurements"]["area:lesion"]
    assert 0 < area["width"][1] <= area["pixel width"]
    assert area["unit"] == "pixels" and 40 < area["median"] < 120
    assert row["measurements"]["count:lesion"]["above"] == 1.0
    assert 0 < row["answered foreground certified"] < 1


def test_the_page_of_published_networks_says_what_its_results_say(found: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    study = {"case": "retina", "images": 2, "failed": 0, "n": 100, "seed": 0, "sigmas": {"0.1": found}}
    study_published.write_page(page, [study])
    text = page.read_text()
    low = found["methods"]["plain"]["foreground"]["guaranteed Dice"]["mean"]
    assert f"**{low:.3f}**" in text and study_published.CASES["retina"].source in text
    with pytest.raises(InputError, match="run a case first"):
        study_published.write_page(page, [])


def test_the_section_of_measurements_says_what_its_results_say(found: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    study = {"set": "isic", "images": 2, "n": 100, "alpha": 1e-3, "seed": 0, "sigmas": {"0.1": found}}
    study_measurements.write_section(page, [study])
    assert "100 % (0.5)" in page.read_text()


def test_the_squares_of_the_retina_are_cut_from_its_middle(tmp_path: Path) -> None:
    given = np.arange(584 * 565).reshape(1, 584, 565) % 251
    np.savez(
        tmp_path / "seg_retina_drive.npz",
        images=given.astype(np.uint8),
        masks=(given % 2).astype(np.uint8),
        files=np.array(["01_test.tif"]),
    )
    study_published.retina_images(tmp_path, tmp_path / "out")
    crop = np.asarray(Image.open(tmp_path / "out" / "images" / "01_test.png"))
    assert np.array_equal(crop, given[0, 228:356, 218:346])
