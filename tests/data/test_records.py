"""The record of how values became [0, 1]: as data, as a sentence, and what is said of a whole data set."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certimed.data import Intensity, IntensityReport, MedicalImage, ReadOptions, Step, open_dataset, read_image
from certimed.errors import InputError

SHARED = Path(os.environ.get("CERTIMED_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def image(name: str, values: np.ndarray, *steps: Step) -> MedicalImage:
    return MedicalImage(name, values.astype(np.float32)[None], None, steps, name)


WIDE = np.linspace(0, 1, 100).reshape(10, 10)
DIVIDED = Step("divided", {"what": "8-bit grey", "top": 255})
FULL_RANGE = Step("full_range", {"low": -32768.0, "high": 32767.0})


def test_record_is_data_and_the_sentence_is_made_of_it(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    record = read.intensity_record
    assert record.to_json() == {
        "steps": [{"step": "divided", "what": "8-bit grey", "top": 255}],
        "used": [0.0, 1.0],
        "bulk": pytest.approx([0.01, 0.99]),
        "flags": [],
    }
    again = Intensity.from_json(json.loads(json.dumps(record.to_json())))
    assert (again.to_json(), str(again)) == (record.to_json(), str(record))
    for bad in (
        {},
        {**record.to_json(), "steps": [{"step": "magic"}]},
        {**record.to_json(), "steps": [{"step": "divided"}]},
    ):
        with pytest.raises(InputError, match="no record of intensities"):
            Intensity.from_json(bad)
    assert read.intensity == str(record) == "8-bit grey divided by 255"
    assert read.decoders["Pillow"]


def test_digest_is_of_shape_and_values() -> None:
    one = image("a", WIDE, DIVIDED)
    assert one.pixels_sha256 == image("b", WIDE.copy(order="F")).pixels_sha256
    assert one.pixels_sha256 != image("a", WIDE.reshape(5, 20)).pixels_sha256
    changed = WIDE.astype(np.float32)
    changed[3, 3] = np.nextafter(changed[3, 3], np.float32(1))
    assert one.pixels_sha256 != image("a", changed).pixels_sha256


def test_line() -> None:
    report = IntensityReport()
    assert report.line == "no image was read"
    for name in "abc":
        report.add(name, image(name, WIDE / 2, DIVIDED).intensity_record)
    assert report.line == "8-bit grey divided by 255; 0 to 0.5 of [0, 1] used"
    report.add("d", image("d", WIDE, FULL_RANGE).intensity_record)
    assert report.line == "8-bit grey divided by 255 (3), full range of the stored bits (1); 0 to 1 of [0, 1] used"


def test_warnings_name_an_example_and_a_remedy() -> None:
    images = [
        image("flat.png", np.zeros((4, 4)), DIVIDED),
        image("ct.dcm", 0.5 + WIDE / 30, FULL_RANGE),
        image("ct2.dcm", 0.5 + WIDE / 30, FULL_RANGE),
        image("dark.png", WIDE / 30, DIVIDED),
        image("mr.dcm", WIDE, FULL_RANGE),
        image("fine.png", WIDE, DIVIDED),
    ]
    assert IntensityReport(images[-1:]).warnings == []
    flat, narrow, dark, unplaced = IntensityReport(images).warnings
    assert flat.startswith("1 of 6 images is constant (e.g. flat.png)")
    assert narrow.startswith("2 of 6 images use less than 5 % of [0, 1] (e.g. ct.dcm: no window in the header)")
    assert narrow.endswith("set --window CENTRE,WIDTH")
    assert dark.startswith("1 of 6 images uses less than 5 % of [0, 1] (e.g. dark.png: ")
    assert "--window" not in dark  # 8-bit images never use it
    assert unplaced.startswith("1 of 6 images has no window in the header") and "mr.dcm" in unplaced


def test_padding_does_not_hide_a_narrow_image() -> None:
    values = 0.5 + WIDE / 30
    values[:5] = 0
    assert image("a", values, FULL_RANGE, Step("padding", {"pixels": 50})).intensity_record.narrow
    assert not image("a", values, FULL_RANGE).intensity_record.narrow


def test_outliers_do_not_hide_a_narrow_image() -> None:
    values = np.full((40, 40), 0.5)
    values[:20] = 0.51
    values[0, 0], values[0, 1] = 0, 1
    assert image("a", values).intensity_record.narrow


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    frames = [Image.new("L", (9, 9), value) for value in (0, 90, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    report = IntensityReport([read_image(tmp_path / "a.gif", ReadOptions(frame=1))])
    assert any("further frames, left out (e.g. a.gif: frame 1 of 3)" in warning for warning in report.warnings)


def test_certified_in_silence_before() -> None:
    """A CT without a window, an RT dose and an all-zero image."""
    folder = SHARED / "cases" / "flat-dicom-certified"
    if not folder.is_dir():
        pytest.skip("the cases are not there (set CERTIMED_SHARED)")
    dataset = open_dataset(folder, classes=["a", "b"])
    report = IntensityReport(dataset.load(index) for index in range(len(dataset)))
    warnings = "\n".join(report.warnings)
    assert "3 of 4 images use less than 5 % of [0, 1]" in warnings
    assert "1 of 4 images is constant (e.g. b/allzero.dcm)" in warnings


def test_other_cases_of_the_shared_folder() -> None:
    cases = SHARED / "cases"
    if not cases.is_dir():
        pytest.skip("the cases are not there (set CERTIMED_SHARED)")
    export = open_dataset(cases / "dicomdir-beside-classes" / "export")
    assert (export.ids, export.ignored) == (("a/x.dcm", "b/deflated.dcm"), 1)
    shapes = {path.name: read_image(path).pixels.shape for path in (cases / "tiff-planes-and-messages").glob("*.tif")}
    assert shapes.pop("f64_01.tif") == (1, 96, 96)
    assert set(shapes.values()) == {(3, 96, 96)} and len(shapes) == 3
    volume = cases / "nifti-nan-background" / "nan_border.nii.gz"
    assert read_image(volume, ReadOptions(nan="zero", window=(50, 100))).intensity_record.find("nan") is not None
