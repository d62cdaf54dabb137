"""What a workflow shows a model: the reader's own picture at the image's own settings, and known ones elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dicom_files
import numpy as np
import pytest
import torch
from PIL import Image

from certimed import ImageError, ModelError
from certimed.data import MedicalImage, ReadOptions, raw_image, read_image
from certimed.settings import Workflow, read_vary
from certimed.settings.views import brought_back, shown

CPU = torch.device("cpu")
HOUNSFIELD = np.random.default_rng(0).integers(0, 2000, (9, 12)).astype(np.uint16)


def scan(folder: Path, **attributes: Any) -> Path:
    """A CT slice with a window in its header."""
    header = {"RescaleSlope": 1, "RescaleIntercept": -1000, "RescaleType": "HU", "WindowCenter": 40, "WindowWidth": 400}
    return dicom_files.write(folder / "ct.dcm", HOUNSFIELD, **(header | attributes))


def picture(image: MedicalImage, vary: list[str], *u: float) -> np.ndarray:
    """What is shown at these coordinates."""
    workflow = Workflow(read_vary(vary), image, CPU)
    made = workflow.images(torch.tensor(u, dtype=torch.float32).view(1, -1, 1))
    assert made.dtype == torch.float32 and made.shape == (1, *image.pixels.shape)
    return made[0].numpy()


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PixelPaddingValue": int(HOUNSFIELD[0, 0]), "PixelPaddingRangeLimit": 300},
        {"VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": None, "WindowWidth": None},
    ],
)
def test_a_ct_slice_at_its_own_settings_is_what_its_reader_shows(tmp_path: Path, attributes: dict[str, Any]) -> None:
    image = read_image(scan(tmp_path, **attributes))
    every = ["window-center=30", "window-width=0.2", "gain=0.1", "offset=0.1", "gamma=0.1", "rotation=5"]
    np.testing.assert_allclose(picture(image, every, *[0.0] * 6), image.pixels, atol=2e-6)


def test_another_window_is_the_reader_s_own_with_that_window(tmp_path: Path) -> None:
    image = read_image(scan(tmp_path, VOILUTFunction="LINEAR_EXACT"))
    made = picture(image, ["window-center=30HU", "window-width=0.2"], 2.0, -1.0)
    wanted = read_image(tmp_path / "ct.dcm", ReadOptions(window=(100.0, 400 * np.exp(-0.2))))
    np.testing.assert_allclose(made, wanted.pixels, atol=2e-6)
    varied = Workflow(read_vary(["window-center=30", "window-width=0.2"]), image, CPU).varied
    assert [(one.unit, one.at) for one in varied.axes] == [("HU", 40.0), ("", 400.0)] and varied.image == (1, 9, 12)


def test_a_volume_s_slice_and_what_lies_between_two(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.random.default_rng(1).normal(100, 30, (6, 7, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii")
    image = read_image(tmp_path / "v.nii")
    np.testing.assert_allclose(picture(image, ["window-center=5"], 0.0), image.pixels, atol=2e-6)
    assert raw_image(image).unit == ""


def test_eight_bits(tmp_path: Path) -> None:
    grey = np.arange(100, dtype=np.uint8).reshape(10, 10) * 2
    Image.fromarray(grey).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    assert (raw_image(image).low, raw_image(image).high, raw_image(image).unit) == (0.0, 255.0, "grey")
    made = picture(image, ["window-center=10grey"], 1.0)
    np.testing.assert_allclose(made[0], np.clip((grey - 10.0) / 255, 0, 1), atol=2e-6)
    light = grey / np.float32(255)
    made = picture(image, ["gain=0.1", "offset=10%", "gamma=0.5"], 2.0, -1.0, 1.0)
    np.testing.assert_allclose(made[0], np.clip(light * np.exp(0.2) - 0.1, 0, 1) ** np.exp(0.5), atol=2e-5)


def test_a_viewport_moves_turns_and_widens() -> None:
    raw = torch.arange(2 * 6 * 6, dtype=torch.float32).view(2, 1, 6, 6)

    def at(**changes: float) -> torch.Tensor:
        named = {
            name.replace("_", "-"): torch.full((2,), value, dtype=torch.float64) for name, value in changes.items()
        }
        return shown(raw, named)

    assert torch.allclose(at(), raw, atol=1e-4)
    right = at(crop_x=2.0)
    assert torch.allclose(right[..., :4], raw[..., 2:], atol=1e-4) and right[..., 4:].isnan().all()
    down = at(crop_y=-1.0)
    assert torch.allclose(down[:, :, 1:], raw[:, :, :-1], atol=1e-4) and down[:, :, 0].isnan().all()
    # Rows go down, so that an angle turns the viewport clockwise and what it shows the other way.
    assert torch.allclose(at(rotation=90.0), raw.rot90(1, (2, 3)), atol=1e-3)
    wide = at(crop_scale=3.0)
    assert wide[:, :, 0].isnan().all() and not wide[:, :, 2:4, 2:4].isnan().any()


def test_answers_are_brought_back_to_the_raw_image() -> None:
    scores = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    changes = {
        "crop-x": torch.tensor([2.0], dtype=torch.float64),
        "rotation": torch.tensor([90.0], dtype=torch.float64),
    }
    seen = shown(scores, changes)
    back = brought_back(seen.nan_to_num(0.0), changes)
    inside = ~shown(torch.ones_like(scores), changes).isnan()
    kept = brought_back(inside.float(), changes)[:, 0] > 0.5
    covered = kept & torch.isclose(back, scores, atol=1e-3).all(dim=1)
    assert int(covered.sum()) == 24
    # What no viewport shows is of class 0.
    assert (back.argmax(1)[~kept] == 0).all()


def test_padding_stays_background_whatever_is_set(tmp_path: Path) -> None:
    image = read_image(scan(tmp_path, PixelPaddingValue=0, PixelPaddingRangeLimit=500))
    hidden = np.isnan(raw_image(image).values)
    assert hidden.any()
    assert (picture(image, ["offset=0.5", "gain=1"], 1.0, 1.0)[hidden] == 0).all()


def test_samples_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    image = read_image(scan(tmp_path))
    workflow = Workflow(read_vary(["window-center=30", "crop=2px", "rotation=4", "gamma=0.3"]), image, CPU)
    u = torch.randn(7, 5, 1, generator=torch.Generator().manual_seed(3))
    together = workflow.images(u)
    assert torch.equal(together, torch.cat([workflow.images(one.unsqueeze(0)) for one in u]))
    assert bool(((together >= 0) & (together <= 1)).all())
    assert torch.isfinite(workflow.images(50 * u)).all()


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    image = read_image(scan(tmp_path))

    def brighter(raw: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        return (raw + 1000 + theta[:, :1].view(-1, 1, 1, 1)) / 2000

    axes = read_vary(["python:mine:brighter=50", "gain=0.1"])
    made = Workflow(axes, image, CPU, brighter).images(torch.tensor([[[1.0], [0.0]]]))
    np.testing.assert_allclose(made[0, 0].numpy(), np.clip((HOUNSFIELD + 50) / 2000, 0, 1), atol=1e-6)
    with pytest.raises(ModelError, match="images of"):
        Workflow(axes, image, CPU, lambda raw, theta: raw).images(torch.zeros(2, 2, 1))


def test_what_an_image_lacks_is_named(tmp_path: Path) -> None:
    image = read_image(scan(tmp_path, VOILUTFunction="SIGMOID"))
    with pytest.raises(ImageError, match="no linear window"):
        Workflow(read_vary(["gain=0.1"]), image, CPU)
    plain = read_image(scan(tmp_path))
    with pytest.raises(ImageError, match="does not say its spacing"):
        Workflow(read_vary(["crop=2mm"]), plain, CPU)
    with pytest.raises(ImageError, match="values in HU"):
        Workflow(read_vary(["window-center=2grey"]), plain, CPU)
    spaced = read_image(scan(tmp_path, PixelSpacing=[2.0, 0.5]))
    changes = Workflow(read_vary(["crop=2mm"]), spaced, CPU).changes(torch.ones(1, 2, 1))
    assert [float(one) for one in changes.values()] == [4.0, 1.0]
    Image.fromarray(np.full((4, 4), 900, dtype=np.uint16)).save(tmp_path / "w.png")
    clipped = read_image(tmp_path / "w.png", ReadOptions(window=(500.0, 300.0)))
    with pytest.raises(ImageError, match="clipped to its window"):
        Workflow(read_vary(["gain=0.1"]), clipped, CPU)
