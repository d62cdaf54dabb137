"""DICOM: exact pixel values for every way a header can say what its numbers mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import write
from hypothesis import given, settings
from hypothesis import strategies as st

from certimed.data import ReadOptions, read_image
from certimed.errors import ImageError

pydicom = pytest.importorskip("pydicom")


CT = np.array([[-1024, -160, 39], [40, 240, 3000]], np.int16)


def test_full_range_of_stored_bits_without_a_window(tmp_path: Path) -> None:
    values = np.array([[0, 1], [2048, 4095]], np.uint16)
    image = read_image(write(tmp_path / "a.dcm", values, bits=12))
    np.testing.assert_array_equal(image.pixels[0], (values / 4095).astype(np.float32))
    assert "full range of the stored bits, 0 to 4095" in image.intensity


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.int16, 12), (np.int16, 16), (np.uint16, 16)])
def test_every_depth_and_sign(tmp_path: Path, dtype: Any, bits: int) -> None:
    signed = np.dtype(dtype).kind == "i"
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = np.array([[low, low + 1], [high - 1, high]], dtype)
    pixels = read_image(write(tmp_path / "a.dcm", values, bits=bits)).pixels[0]
    np.testing.assert_array_equal(pixels, ((values.astype(float) - low) / (high - low)).astype(np.float32))


def test_bits_above_the_stored_ones_are_dropped(tmp_path: Path) -> None:
    values = np.array([[0, 4095]], np.uint16)
    overlaid = values | 0x8000
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.dcm", overlaid, bits=12)).pixels[0], [[0, 1]])


def test_rescale_and_header_window(tmp_path: Path) -> None:
    stored = (CT + 1024).astype(np.uint16)
    path = write(
        tmp_path / "a.dcm", stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[40, 700], WindowWidth=[400, 9]
    )
    image = read_image(path)
    expected = np.clip((CT - (40 - 0.5)) / (400 - 1) + 0.5, 0, 1)  # DICOM PS3.3 C.11.2.1.2.1
    np.testing.assert_allclose(image.pixels[0], expected, atol=1e-7)
    assert "rescaled by 1 and -1024; window centre 40, width 400 from the header (LINEAR)" in image.intensity


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        ("LINEAR_EXACT", lambda x: np.clip((x - 40) / 400 + 0.5, 0, 1)),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 40.0) / 400))),
    ],
)
def test_other_window_functions(tmp_path: Path, function: str, formula: Any) -> None:
    path = write(tmp_path / "a.dcm", CT, WindowCenter=40, WindowWidth=400, VOILUTFunction=function)
    np.testing.assert_allclose(read_image(path).pixels[0], formula(CT), atol=1e-6)


def test_window_of_width_one_is_a_threshold(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", CT, WindowCenter=40, WindowWidth=1)
    np.testing.assert_array_equal(read_image(path).pixels[0], [[0, 0, 0], [1, 1, 1]])


def test_asked_window_replaces_the_header_window(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", CT, WindowCenter=0, WindowWidth=10)
    image = read_image(path, ReadOptions(window=(40, 400)))
    np.testing.assert_allclose(image.pixels[0], np.clip((CT + 160.0) / 400, 0, 1), atol=1e-7)
    assert "as asked for" in image.intensity


def test_full_range_follows_the_rescale(tmp_path: Path) -> None:
    values = np.array([[0, 255]], np.uint8)
    image = read_image(write(tmp_path / "a.dcm", values, RescaleSlope=-2, RescaleIntercept=10))
    np.testing.assert_array_equal(image.pixels[0], [[1, 0]])  # a falling slope: large stored values are small
    assert "-500 to 10" in image.intensity


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    values = np.array([[0, 51, 255]], np.uint8)
    image = read_image(write(tmp_path / "a.dcm", values, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(image.pixels[0], [[1, 0.8, 0]], atol=1e-7)
    assert "MONOCHROME1 inverted" in image.intensity


def test_colour(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    path = write(tmp_path / "a.dcm", values, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    np.testing.assert_array_equal(
        read_image(path).pixels, values.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    )


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    red = np.tile(np.array([76, 85, 255], np.uint8), (2, 2, 1))
    path = write(tmp_path / "a.dcm", red, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(read_image(path).pixels[:, 0, 0], [1, 0, 0], atol=0.01)


def test_palette(tmp_path: Path) -> None:
    table = np.array([0, 0xFFFF], np.uint16).tobytes()
    black = np.zeros(2, np.uint16).tobytes()
    tables = {f"{c}PaletteColorLookupTableData": table if c == "Green" else black for c in ("Red", "Green", "Blue")}
    descriptors = {f"{c}PaletteColorLookupTableDescriptor": [2, 0, 16] for c in ("Red", "Green", "Blue")}
    path = write(
        tmp_path / "a.dcm",
        np.array([[0, 1]], np.uint8),
        PhotometricInterpretation="PALETTE COLOR",
        **descriptors,
        **tables,
    )
    np.testing.assert_array_equal(read_image(path).pixels, [[[0, 0]], [[0, 1]], [[0, 0]]])


def test_frames(tmp_path: Path) -> None:
    values = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2) * 20
    path = write(tmp_path / "a.dcm", values)
    for frame in range(3):
        image = read_image(path, ReadOptions(frame=frame))
        np.testing.assert_array_equal(np.rint(image.pixels[0] * 255), values[frame])
        assert f"frame {frame} of 3" in image.intensity
    with pytest.raises(ImageError, match="frame 3 was asked for and it has 3"):
        read_image(path, ReadOptions(frame=3))


def test_enhanced_functional_groups(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    def group(intercept: float) -> Any:
        part, whole = Dataset(), Dataset()
        part.RescaleSlope, part.RescaleIntercept = 1, intercept
        whole.PixelValueTransformationSequence = [part]
        return whole

    voi, shared = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = 50, 100, "LINEAR_EXACT"
    shared.FrameVOILUTSequence = [voi]
    path = write(
        tmp_path / "a.dcm",
        np.full((2, 1, 1), 25, np.uint8),
        PerFrameFunctionalGroupsSequence=[group(0), group(25)],
        SharedFunctionalGroupsSequence=[shared],
    )
    assert read_image(path).pixels.item() == pytest.approx(0.25)
    assert read_image(path, ReadOptions(frame=1)).pixels.item() == pytest.approx(0.5)


def test_voi_table(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.add_new("LUTData", "US", [0, 13107, 26214, 65535])
    path = write(tmp_path / "a.dcm", np.array([[0, 1, 2, 3]], np.uint8), VOILUTSequence=[table])
    image = read_image(path)
    np.testing.assert_allclose(image.pixels[0], [[0, 0.2, 0.4, 1]], atol=1e-6)
    assert "VOI table" in image.intensity


def test_jpeg2000_inside(tmp_path: Path) -> None:
    pytest.importorskip("openjpeg")
    from pydicom.uid import JPEG2000Lossless

    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    dataset = pydicom.dcmread(write(tmp_path / "a.dcm", values, bits=12))
    dataset.compress(JPEG2000Lossless)
    dataset.save_as(tmp_path / "b.dcm")
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm").pixels, read_image(tmp_path / "a.dcm").pixels)


def test_file_without_preamble(tmp_path: Path) -> None:
    data = write(tmp_path / "a.dcm", np.array([[0, 255]], np.uint8)).read_bytes()
    (tmp_path / "b.dcm").write_bytes(data[132:])
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm").pixels[0], [[0, 1]])


def test_refusals(tmp_path: Path) -> None:
    values = np.zeros((2, 2), np.uint8)
    with pytest.raises(ImageError, match="slope 0"):
        read_image(write(tmp_path / "a.dcm", values, RescaleSlope=0))
    with pytest.raises(ImageError, match="unknown window function"):
        read_image(write(tmp_path / "a.dcm", values, WindowCenter=1, WindowWidth=9, VOILUTFunction="MAGIC"))
    with pytest.raises(ImageError, match="more than the 3 that are read at once"):
        read_image(write(tmp_path / "a.dcm", values), ReadOptions(max_pixels=3))
    with pytest.raises(ImageError, match=r"^a\.dcm cannot be read: "):
        read_image(write(tmp_path / "a.dcm", values, Rows=4000, Columns=4000))


def test_padding_is_background_whatever_the_window(tmp_path: Path) -> None:
    values = np.array([[0, 100, 200, 255]], np.uint8)
    dark = read_image(write(tmp_path / "a.dcm", values, PixelPaddingValue=255))
    np.testing.assert_array_equal(dark.pixels[0, 0], np.array([0, 100, 200, 0], np.float32) / np.float32(255))
    assert "1 padding pixels set to background" in dark.intensity
    inverted = {"PhotometricInterpretation": "MONOCHROME1"}
    light = read_image(write(tmp_path / "b.dcm", values, PixelPaddingValue=0, **inverted))
    np.testing.assert_allclose(light.pixels[0, 0], [0, 155 / 255, 55 / 255, 0], atol=1e-6)
    ranged = read_image(
        write(tmp_path / "c.dcm", values, PixelPaddingValue=255, PixelPaddingRangeLimit=150, **inverted)
    )
    np.testing.assert_allclose(ranged.pixels[0, 0], [1, 155 / 255, 0, 0], atol=1e-6)
    window = ReadOptions(window=(-100, 100))
    assert read_image(tmp_path / "c.dcm", window).pixels[0, 0].tolist() == [0, 0, 0, 0]
    with pytest.raises(ImageError, match="every pixel of it is padding"):
        read_image(write(tmp_path / "d.dcm", values, PixelPaddingValue=0, PixelPaddingRangeLimit=255))


@pytest.mark.parametrize(("value", "kind"), [(-2000, "SS"), (63536, "US")])
def test_padding_value_with_the_wrong_sign_or_outside_the_stored_bits(tmp_path: Path, value: int, kind: str) -> None:
    for dtype, bits in ((np.int16, 16), (np.uint16, 12)):
        values = np.array([[63536, 7, 9]], np.uint16).view(dtype)
        path = write(
            tmp_path / "a.dcm", values, bits=bits, WindowCenter=5, WindowWidth=10, VOILUTFunction="LINEAR_EXACT"
        )
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x00280120, kind, value)
        dataset.save_as(path)
        image = read_image(path)
        np.testing.assert_allclose(image.pixels[0, 0], [0, 0.7, 0.9], atol=1e-6)
        assert image.intensity.endswith("1 padding pixels set to background (0)")


def test_float_padding_and_nan(tmp_path: Path) -> None:
    values = np.array([[np.nan, 1, 3, -9]], np.float32)

    def save(name: str, **attributes: Any) -> Path:
        path = write(
            tmp_path / name, np.zeros((1, 4), np.uint16), WindowCenter=2, WindowWidth=4, VOILUTFunction="LINEAR_EXACT"
        )
        dataset = pydicom.dcmread(path)
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        dataset.BitsAllocated, dataset.FloatPixelData = 32, values.tobytes()
        for key, value in attributes.items():
            setattr(dataset, key, value)
        dataset.save_as(path)
        return path

    with pytest.raises(ImageError, match="1 values that are no number"):
        read_image(save("a.dcm", FloatPixelPaddingValue=-9.0))
    read = read_image(save("a.dcm", FloatPixelPaddingValue=-9.0), ReadOptions(nan="min"))
    np.testing.assert_allclose(read.pixels[0, 0], [0.25, 0.25, 0.75, 0])
    read = read_image(save("b.dcm", FloatPixelPaddingValue=float("nan")))
    np.testing.assert_allclose(read.pixels[0, 0], [0, 0.25, 0.75, 0])


def test_tables_without_data_count_as_none(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    values = np.array([[0, 100]], np.uint8)
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        for items in ([Dataset()], []):
            image = read_image(write(tmp_path / "a.dcm", values, **{keyword: items}))
            np.testing.assert_array_equal(image.pixels[0, 0], np.array([0, 100], np.float32) / np.float32(255))


@pytest.mark.parametrize("photometric", ["HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420"])
def test_other_photometrics_are_refused_by_name(tmp_path: Path, photometric: str) -> None:
    path = write(
        tmp_path / "a.dcm", np.zeros((2, 2, 3), np.uint8), SamplesPerPixel=3, PhotometricInterpretation=photometric
    )
    with pytest.raises(ImageError, match=f"photometric interpretation {photometric} is not supported"):
        read_image(path)


def test_one_decoder_a_transfer_syntax_recorded_and_named_when_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openjpeg")
    from importlib.metadata import PackageNotFoundError, version

    from pydicom.uid import JPEG2000Lossless, RLELossless

    from certimed.data import dicom
    from certimed.errors import MissingExtraError

    values = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    plain = pydicom.dcmread(write(tmp_path / "a.dcm", values))
    assert read_image(tmp_path / "a.dcm").decoders == {"pydicom": pydicom.__version__}
    asked = []
    real = pydicom.pixels.pixel_array

    def spy(*args: Any, **options: Any) -> Any:
        asked.append(options["decoding_plugin"])
        return real(*args, **options)

    monkeypatch.setattr(pydicom.pixels, "pixel_array", spy)
    plain.compress(RLELossless)
    plain.save_as(tmp_path / "rle.dcm")
    assert set(read_image(tmp_path / "rle.dcm").decoders) == {"pydicom"}
    plain = pydicom.dcmread(tmp_path / "a.dcm")
    plain.compress(JPEG2000Lossless)  # Pillow could decode it too
    plain.save_as(tmp_path / "j2k.dcm")
    image = read_image(tmp_path / "j2k.dcm")
    assert image.decoders == {name: version(name) for name in ("pydicom", "pylibjpeg", "pylibjpeg-openjpeg")}
    assert asked == ["pydicom", "pylibjpeg"]
    np.testing.assert_array_equal(np.rint(image.pixels[0] * 255), values)

    def missing(package: str) -> str:
        if package == "pylibjpeg-openjpeg":
            raise PackageNotFoundError
        return version(package)

    monkeypatch.setattr(dicom, "version", missing)
    with pytest.raises(MissingExtraError, match=r"JPEG 2000 .* pip install pylibjpeg pylibjpeg-openjpeg"):
        read_image(tmp_path / "j2k.dcm")


def test_transfer_syntax_without_a_decoder_is_refused_by_name(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8)))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    dataset.PixelData = pydicom.encaps.encapsulate([b"1234"])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "b.dcm")
    with pytest.raises(ImageError, match=r"transfer syntax MPEG2 .* is not supported"):
        read_image(tmp_path / "b.dcm")


@settings(max_examples=40, deadline=None)
@given(
    st.integers(-32768, 32767),
    st.integers(-32768, 32767),
    st.floats(-1e4, 1e4),
    st.floats(0.5, 1e5),
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_any_window_gives_rising_values_in_range(low: int, high: int, centre: float, width: float, kind: str) -> None:
    from certimed.data.dicom import window_function

    pixels = window_function(np.array(sorted((low, high)), np.int16), centre, width, kind)
    assert 0 <= pixels[0] <= pixels[1] <= 1


def test_pixel_spacing_is_read_where_it_is_of_the_patient(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert read_image(write(tmp_path / "a.dcm", pixels, PixelSpacing=[0.5, 0.25])).spacing == (0.5, 0.25)
    assert read_image(write(tmp_path / "b.dcm", pixels)).spacing is None
    assert read_image(write(tmp_path / "c.dcm", pixels, ImagerPixelSpacing=[0.5, 0.25])).spacing is None
    assert read_image(write(tmp_path / "d.dcm", pixels, PixelSpacing=[0.0, 0.25])).spacing is None
