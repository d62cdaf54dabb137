"""DICOM series as volumes: voxels and matrix round trip; what is no volume is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import write, write_series

from certimed.data import ReadOptions, open_dataset, read_image
from certimed.data.geometry import DICOM_SERIES
from certimed.errors import ImageError

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
nibabel = pytest.importorskip("nibabel")

RNG = np.random.default_rng(0)
HU = RNG.integers(-1000, 900, (7, 6, 5)).astype(np.int16)
WINDOW = (0.0, 2000.0)
WHOLE = ReadOptions(volume=True, window=WINDOW)


def turned_affine(seed: int) -> np.ndarray:
    """Perpendicular axes in any direction, spacings that differ."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    axes[:, 2] *= np.sign(np.linalg.det(axes))  # right-handed in RAS+: column, row, normal
    affine = np.eye(4)
    affine[:3, :3] = axes * [0.7, 0.9, 2.5]
    affine[:3, 3] = rng.normal(size=3) * 50
    return affine


STRAIGHT = np.array([[-0.7, 0, 0, 90.0], [0, -0.9, 0, 80], [0, 0, 2.5, -40], [0, 0, 0, 1]])


def scaled(values: np.ndarray) -> np.ndarray:
    return np.clip((values.astype(np.float64) + 1000) / 2000, 0, 1).astype(np.float32)


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_a_series_of_a_volume_reads_back(tmp_path: Path, seed: int | None) -> None:
    affine = STRAIGHT if seed is None else turned_affine(seed)
    folder = write_series(tmp_path / "ct", HU, affine, order=[3, 0, 4, 1, 2])
    image = read_image(folder, WHOLE)
    assert image.geometry is not None
    np.testing.assert_array_equal(image.pixels[0], scaled(HU))
    np.testing.assert_allclose(image.geometry.matrix, affine, atol=1e-6)
    assert image.spacing == pytest.approx((0.7, 0.9, 2.5))
    assert image.geometry.source == DICOM_SERIES
    assert [Path(one).name for one in image.geometry.files] == [f"IM{name:04d}.dcm" for name in (3, 0, 4, 1, 2)]
    assert "rescaled by 1 and -1024; window centre 0, width 2000 as asked for" in image.intensity


def test_it_is_the_volume_that_highdicom_reads(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", HU, turned_affine(3))
    files = [pydicom.dcmread(path) for path in folder.iterdir()]
    known = highdicom.image.get_volume_from_series(files)
    image = read_image(folder, WHOLE)
    assert image.geometry is not None
    # highdicom stacks slices against the normal of their planes.
    np.testing.assert_array_equal(image.pixels[0], scaled(known.array.transpose(2, 1, 0)[:, :, ::-1]))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.geometry.matrix @ _flip(2, HU.shape[2])
    np.testing.assert_allclose(lps[:, [2, 1, 0, 3]], known.affine, atol=1e-6)


def test_percentiles_orientation_and_padding(tmp_path: Path) -> None:
    padded = HU.copy()
    padded[0] = -1024

    def edit(k: int, header: Any) -> None:
        header.PixelPaddingValue = 0

    image = read_image(write_series(tmp_path / "ct", padded, STRAIGHT, edit=edit), ReadOptions(volume=True))
    low, high = np.percentile(padded[1:], (0.5, 99.5))
    np.testing.assert_allclose(image.pixels[0, 1:], np.clip((padded[1:] - low) / (high - low), 0, 1), atol=1e-5)
    assert not image.pixels[0, 0].any()
    assert "30 padding pixels set to background (0)" in image.intensity
    ras = read_image(tmp_path / "ct", ReadOptions(volume=True, orientation="RAS"))
    assert ras.geometry is not None
    np.testing.assert_array_equal(ras.pixels, image.pixels[:, ::-1, ::-1])
    assert nibabel.aff2axcodes(ras.geometry.matrix) == ("R", "A", "S")


def test_folders_of_series_are_items_and_slices_their_files(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("one", "two"):
        write_series(tmp_path / "images" / name, HU, STRAIGHT)
        mask = nibabel.Nifti1Image((HU > 0).astype(np.uint8)[::-1], STRAIGHT @ _flip(0, HU.shape[0]))
        nibabel.save(mask, tmp_path / "masks" / f"{name}.nii.gz")
    data = open_dataset(tmp_path, options=WHOLE)
    assert data.ids == ("one", "two")
    whole = data.load(0)
    np.testing.assert_array_equal(whole.mask, HU > 0)
    planes = open_dataset(tmp_path, options=ReadOptions(window=WINDOW), slices="all")
    assert planes.ids[:2] == ("one#0000", "one#0001")
    for k in range(HU.shape[2]):
        plane = planes.load(k)
        np.testing.assert_array_equal(plane.pixels[0], whole.pixels[0, :, :, k].T)
        np.testing.assert_array_equal(plane.mask, (HU > 0)[:, :, k].T)
        assert plane.group == "one"


def _flip(axis: int, size: int) -> np.ndarray:
    turn = np.eye(4)
    turn[axis, axis], turn[axis, 3] = -1, size - 1
    return turn


def test_masks_from_a_dicom_segmentation(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "images", HU, STRAIGHT)
    files = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    classes = np.zeros(HU.shape, np.uint8)
    classes[1:4, 2:5, 1:3], classes[4:6, :2, 2:4] = 1, 2
    (tmp_path / "masks").mkdir()
    _segmentation(files, classes).save_as(tmp_path / "masks" / "images.dcm")
    image = open_dataset(folder, options=WHOLE, masks=tmp_path / "masks").load(0)
    np.testing.assert_array_equal(image.mask, classes)
    (tmp_path / "masks" / "images.dcm").unlink()
    (folder / "IM0000.dcm").replace(tmp_path / "masks" / "images.dcm")
    with pytest.raises(ImageError, match="DICOM image and no segmentation"):
        open_dataset(write_series(tmp_path / "images", HU, STRAIGHT), options=WHOLE, masks=tmp_path / "masks").load(0)


def _segmentation(files: list[Any], classes: np.ndarray) -> Any:
    """A binary SEG of a label volume on the grid of a series."""
    tissue = highdicom.sr.CodedConcept("85756007", "SCT", "Tissue")
    described = [
        highdicom.seg.SegmentDescription(
            number, f"segment {number}", tissue, tissue, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number in (1, 2)
    ]
    files = sorted(files, key=lambda one: one.InstanceNumber)
    pixels = np.stack([classes == number for number in (1, 2)], axis=-1).transpose(2, 1, 0, 3)
    for one in files:
        for name in ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"):
            setattr(one, name, getattr(one, name, None))
        one.ReferringPhysicianName = None
    return highdicom.seg.Segmentation(
        files, pixels.astype(np.uint8), highdicom.seg.SegmentationTypeValues.BINARY, described,
        "1.2.826.0.1.3680043.8.498.7", 9, "1.2.826.0.1.3680043.8.498.6", 1, "made", "test", "1", "0",
    )  # fmt: skip


def test_frames_of_an_enhanced_file(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", HU, turned_affine(4))
    files = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    for one in files:
        for name in ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"):
            setattr(one, name, getattr(one, name, None))
        one.ReferringPhysicianName, one.ImageType, one.AcquisitionNumber = None, ["ORIGINAL", "PRIMARY", "AXIAL"], 1
        one.ContentDate, one.ContentTime, one.Manufacturer = "20200101", "000000", "test"
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        files, "1.2.826.0.1.3680043.8.498.5", 7, "1.2.826.0.1.3680043.8.498.4", 1
    )
    enhanced.save_as(tmp_path / "enhanced.dcm")
    series, frames = read_image(folder, WHOLE), read_image(tmp_path / "enhanced.dcm", WHOLE)
    assert series.geometry is not None
    assert frames.geometry is not None
    np.testing.assert_array_equal(frames.pixels, series.pixels)
    np.testing.assert_allclose(frames.geometry.matrix, series.geometry.matrix, atol=1e-5)
    planes = open_dataset(tmp_path / "enhanced.dcm", slices="all", options=ReadOptions(window=WINDOW))
    assert len(planes) == HU.shape[2]
    places = {plane.pixels.tobytes() for plane in map(planes.load, range(len(planes)))}
    assert places == {series.pixels[:, :, :, k].transpose(0, 2, 1).tobytes() for k in range(HU.shape[2])}


def test_one_of_several_series_by_its_number(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", HU, STRAIGHT)
    write_series(folder, HU[:, :, :3] // 2, STRAIGHT, series="1.2.3", number=5, order=[10, 11, 12])
    chosen = read_image(folder, ReadOptions(volume=True, window=WINDOW, series="5"))
    np.testing.assert_array_equal(chosen.pixels[0], scaled(HU[:, :, :3] // 2))
    assert read_image(folder, ReadOptions(volume=True, window=WINDOW, series="1.2.3")).pixels.shape[-1] == 3


def _edit(name: str, value: Any, at: int = 2) -> Callable[[Path], None]:
    """A series in which one slice has another value in a field, or lacks it."""

    def make(folder: Path) -> None:
        def edit(k: int, header: Any) -> None:
            if k == at:
                delattr(header, name) if value is None else setattr(header, name, value)

        write_series(folder, HU, STRAIGHT, edit=edit)

    return make


def _every(**fields: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write_series(
            folder, HU, STRAIGHT, edit=lambda k, header: [setattr(header, n, v) for n, v in fields.items()] and None
        )

    return make


def _moved(change: Callable[[int, list[float]], list[float]]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        def edit(k: int, header: Any) -> None:
            header.ImagePositionPatient = change(k, [float(one) for one in header.ImagePositionPatient])

        write_series(folder, HU, STRAIGHT, edit=edit)

    return make


def _then(more: Callable[[Path], Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write_series(folder, HU, STRAIGHT)
        more(folder)

    return make


def _cut(folder: Path, keep: float) -> None:
    whole = (folder / "IM0002.dcm").read_bytes()
    (folder / "IM0002.dcm").write_bytes(whole[: int(len(whole) * keep)])


def _small(folder: Path) -> None:
    file = pydicom.dcmread(folder / "IM0002.dcm")
    file.Rows, file.PixelData = 3, file.PixelData[: 3 * 7 * 2]
    file.save_as(folder / "IM0002.dcm")


def _copy(folder: Path) -> None:
    (folder / "copy.dcm").write_bytes((folder / "IM0002.dcm").read_bytes())


def _frames(folder: Path) -> None:
    file = {"SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.1", "SeriesNumber": 2}
    write(folder / "frames.dcm", np.zeros((3, 6, 7), np.uint16), **file)


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing slice": (_then(lambda f: (f / "IM0002.dcm").unlink()), "not evenly spaced: 2.5 mm apart, but 5 mm"),
    "two series": (
        _then(lambda f: write_series(f, HU[:, :, :3], STRAIGHT, series="1.2.3", number=5, order=[10, 11, 12])),
        r"2 series, numbers 2 \(5 images\), 5 \(3 images\); choose one",
    ),
    "gantry tilt": (_moved(lambda k, p: [p[0], p[1] + 0.8 * k, p[2]]), "tilted gantry"),
    "one slice shifted": (_moved(lambda k, p: [p[0] + (k == 2), p[1], p[2]]), "IM0002.dcm is shifted sideways"),
    "duplicate positions": (_moved(lambda k, p: [p[0], p[1], p[2] - 2.5 * (k == 3)]), "two of its slices lie at one"),
    "a copy of a slice": (_then(_copy), "two of its slices lie at one place"),
    "all at one place": (_moved(lambda k, p: [p[0], p[1], 0.0]), "two of its slices lie at one place"),
    "uneven": (_moved(lambda k, p: [p[0], p[1], p[2] + 0.1 * k * k]), "not evenly spaced"),
    "pixels cut off": (_then(lambda f: _cut(f, 0.97)), "its slice IM0002.dcm is broken or cut off"),
    "header cut off": (_then(lambda f: _cut(f, 0.3)), "its file IM0002.dcm is no DICOM image, or is cut off"),
    "mixed sizes": (_then(_small), "its slices have different sizes"),
    "localiser": (_edit("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a localiser lies among its slices"),
    "no pixel spacing": (_edit("PixelSpacing", None), "has no PixelSpacing"),
    "no position": (_edit("ImagePositionPatient", None), "has no ImagePositionPatient"),
    "no orientation": (_edit("ImageOrientationPatient", None), "has no ImageOrientationPatient"),
    "mixed spacing": (_edit("PixelSpacing", [1, 1]), "different pixel spacings"),
    "mixed orientations": (_edit("ImageOrientationPatient", [1, 0, 0, 0, 0, 1]), "different orientations"),
    "directions that are none": (_every(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not perpendicular unit vectors"),
    "spacing of 0": (_every(PixelSpacing=[0, 0]), "does not say its place in the patient and its pixel spacing"),
    "another frame of reference": (_edit("FrameOfReferenceUID", "1.2.3.4"), "different frames of reference"),
    "inverted slice": (_edit("PhotometricInterpretation", "MONOCHROME1"), "different photometric interpretations"),
    "frames among slices": (_then(_frames), "holds several frames"),
    "one slice": (lambda f: write_series(f, HU[:, :, :1], STRAIGHT), "one slice and no volume"),
    "rescale of 0": (_edit("RescaleSlope", 0), "IM0002.dcm cannot be used: its header has rescale slope 0"),
    "colour": (_every(PhotometricInterpretation="RGB"), "colour image"),
    "all padding": (_every(PixelPaddingValue=0, PixelPaddingRangeLimit=4000), "every voxel of it is padding"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_series_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    make, said = HOSTILE[name]
    make(tmp_path / "ct")
    with pytest.raises(ImageError, match=said) as found:
        read_image(tmp_path / "ct", WHOLE)
    assert "\n" not in str(found.value)
    assert "Doe" not in str(found.value)
    assert str(found.value).startswith("ct cannot be read: ")


def test_an_unknown_series_and_a_window_less_volume(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", np.zeros_like(HU), STRAIGHT)
    with pytest.raises(ImageError, match="nearly all of the volume is one value"):
        read_image(folder, ReadOptions(volume=True))
    with pytest.raises(ImageError, match=r"series 9 fits 0 of its series: 2 \(5 images\)"):
        read_image(folder, ReadOptions(volume=True, series="9"))
    with pytest.raises(ImageError, match="one slice and no volume"):
        read_image(folder / "IM0000.dcm", WHOLE)
