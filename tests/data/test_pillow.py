"""Pillow formats: exact pixel values for every mode and bit depth."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile

from certimed.data import ReadOptions, read_image
from certimed.errors import ImageError, InputError

GREY = np.array([[0, 1, 127], [128, 254, 255]], dtype=np.uint8)
COLOUR = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
DEEP = np.array([[0, 1, 257], [32768, 65534, 65535]], dtype=np.uint16)


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_grey_8_bit_is_divided_by_255(tmp_path: Path, ending: str) -> None:
    Image.fromarray(GREY).save(tmp_path / f"a.{ending}")
    image = read_image(tmp_path / f"a.{ending}")
    assert image.id == f"a.{ending}"
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels, GREY[None].astype(np.float32) / np.float32(255))
    assert "255" in image.intensity


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_colour_8_bit_is_channels_first(tmp_path: Path, ending: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / f"a.{ending}")
    pixels = read_image(tmp_path / f"a.{ending}").pixels
    np.testing.assert_array_equal(pixels, COLOUR.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_16_bit_is_divided_by_65535(tmp_path: Path, ending: str) -> None:
    Image.fromarray(DEEP).save(tmp_path / f"a.{ending}")
    image = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(image.pixels, DEEP[None].astype(np.float32) / np.float32(65535))
    assert "65535" in image.intensity


def test_16_bit_tiff_where_zero_is_white_is_inverted(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "a.tif", tiffinfo={262: 0})
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, (65535 - DEEP[None]).astype(np.float32) / np.float32(65535))
    assert "inverted" in image.intensity


def test_8_bit_tiff_where_zero_is_white_is_inverted(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as opened:
        expected = np.asarray(opened)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels[0], expected.astype(np.float32) / 255)


def test_16_bit_with_a_window(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", ReadOptions(window=(32768, 65536)))
    np.testing.assert_allclose(image.pixels[0], DEEP / 65536, atol=1e-7)
    assert "window" in image.intensity


def test_16_bit_colour_keeps_its_bits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_16_bit_colour())
    image = read_image(tmp_path / "a.png")
    assert image.pixels.shape == (3, 1, 2)
    expected = np.array([[0x1234, 0x5678, 0x9ABC], [0xFFFF, 0xFFFE, 0xFFFF]], np.float32) / np.float32(65535)
    np.testing.assert_array_equal(image.pixels[:, 0], expected.T)
    assert "65535" in image.intensity
    assert set(image.decoders) == {"Pillow", "imagecodecs"}


def png_16_bit_colour() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\x00" + bytes.fromhex("123456789abc") + bytes.fromhex("fffffffeffff")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )


def test_one_bit(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels[0], bits.astype(np.float32))


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode=None)
    image = image.convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + [0] * 759)
    image.save(tmp_path / "a.png", transparency=1)
    read = read_image(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == "P"
    np.testing.assert_array_equal(read.pixels, np.array([[[1, 0], [0, 0]], [[0, 1], [0, 1]], [[0, 0], [1, 0]]]))
    assert "palette" in read.intensity


@pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
def test_alpha_is_dropped_not_blended(tmp_path: Path, mode: str, channels: int) -> None:
    values = np.full((2, 2, channels + 1), 200, np.uint8)
    values[..., -1] = [[0, 10], [100, 255]]
    image = Image.fromarray(values)
    assert image.mode == mode
    image.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read.pixels, np.full((channels, 2, 2), np.float32(200) / np.float32(255)))
    assert "alpha dropped" in read.intensity


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (3, 2), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    read = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(read.pixels[:, 0, 0], [1, 0, 0])
    assert "CMYK" in read.intensity


def test_float_tiff(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels[0], values)
    Image.fromarray(values * 100).save(tmp_path / "b.tif")
    with pytest.raises(ImageError, match="give a window"):
        read_image(tmp_path / "b.tif")
    np.testing.assert_allclose(read_image(tmp_path / "b.tif", ReadOptions(window=(50, 100))).pixels[0], values)


def test_32_bit_integers_need_a_window(tmp_path: Path) -> None:
    values = np.array([[-1000, 0], [1000, 3000]], np.int32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif cannot be read: it holds integers .* -1000 to 3000"):
        read_image(tmp_path / "a.tif")
    read = read_image(tmp_path / "a.tif", ReadOptions(window=(0, 2000)))
    np.testing.assert_array_equal(read.pixels[0], [[0, 0.5], [1, 1]])


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    packed = {"compression": "tiff_lzw"} if ending == "tif" else {}
    Image.fromarray(GREY).save(tmp_path / f"a.{ending}", exif=exif, **packed)
    undo = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.T,
        lambda a: np.rot90(a, -1),
        lambda a: a[::-1, ::-1].T,
        np.rot90,
    ]
    read = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(np.rint(read.pixels[0] * 255), undo[orientation - 1](GREY))
    assert ("EXIF" in read.intensity) == (orientation > 1)


def test_broken_exif_is_ignored_and_said(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=b"Exif\x00\x00garbage that is no TIFF")
    assert read_image(tmp_path / "a.png").pixels.shape == (1, 2, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_tiff_is_right_compressed_or_not(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(tmp_path / "raw.tif", exif=exif)
    Image.fromarray(GREY).save(tmp_path / "lzw.tif", exif=exif, compression="tiff_lzw")
    pixels = read_image(tmp_path / "raw.tif").pixels
    np.testing.assert_array_equal(pixels, read_image(tmp_path / "lzw.tif").pixels)


def test_orientation_of_16_bit_grey_jpeg_and_out_of_range(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(DEEP).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels[0] * 65535, np.rot90(DEEP, -1))
    Image.new("RGB", (16, 8), (10, 20, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").pixels.shape == (3, 16, 8)
    exif[0x0112] = 99
    Image.fromarray(GREY).save(tmp_path / "b.png", exif=exif)
    np.testing.assert_array_equal(np.rint(read_image(tmp_path / "b.png").pixels[0] * 255), GREY)


@pytest.mark.parametrize("ending", ["gif", "png", "tif", "webp"])
def test_frame_of_many(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (4, 4), (value, value, value)) for value in (0, 90, 255)]
    extra = {"lossless": True} if ending == "webp" else {}
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], **extra)
    for index, value in enumerate((0, 90, 255)):
        read = read_image(tmp_path / f"a.{ending}", ReadOptions(frame=index))
        np.testing.assert_array_equal(read.pixels, np.full_like(read.pixels, np.float32(value) / np.float32(255)))
        assert f"frame {index} of 3" in read.intensity
    with pytest.raises(ImageError, match="frame 3 was asked for and it has 3"):
        read_image(tmp_path / f"a.{ending}", ReadOptions(frame=3))


def test_content_decides_not_the_ending(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").pixels[0] * 255, GREY)


def photo(progressive: bool) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, progressive=progressive)
    return stream.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 0.99])
def test_truncated_jpeg_fails(tmp_path: Path, progressive: bool, share: float) -> None:
    data = photo(progressive)
    (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"^a\.jpg cannot be read: "):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_truncated_lossless_fails(tmp_path: Path, ending: str) -> None:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, {"tif": "TIFF"}.get(ending, ending.upper()))
    data = stream.getvalue()
    for share in (0.005, 0.1, 0.5, 0.95):
        (tmp_path / f"a.{ending}").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError):
            read_image(tmp_path / f"a.{ending}")


def test_png_with_a_flipped_bit_fails(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError):
        read_image(tmp_path / "a.png")


def test_max_pixels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", ReadOptions(max_pixels=6)).pixels.shape == (1, 2, 3)
    with pytest.raises(ImageError, match="3 x 2 pixels, more than the 5 that are read at once"):
        read_image(tmp_path / "a.png", ReadOptions(max_pixels=5))


@pytest.mark.parametrize(
    "bad",
    [
        {"window": (0, 0)},
        {"window": (0, float("nan"))},
        {"window": "40"},
        {"frame": -1},
        {"axis": "up"},
        {"axis": 3},
        {"slice": -1},
        {"percentiles": (50, 50)},
        {"percentiles": (-1, 50)},
        {"max_pixels": 0},
    ],
)
def test_options_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        ReadOptions(**bad)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    )
)
def test_round_trip_of_any_grey_array(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("any") / "a.png"
    Image.fromarray(values).save(path)
    pixels = read_image(path).pixels
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    top = np.iinfo(values.dtype).max
    np.testing.assert_array_equal(np.rint(pixels[0].astype(np.float64) * top).astype(values.dtype), values)


@pytest.mark.parametrize("ending", ["jpg", "bmp", "gif"])
def test_what_other_libraries_allow_pillow_is_not_allowed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """WeasyPrint lets Pillow read files that are cut off; their missing pixels must not be certified."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{ending}")
    content = (tmp_path / f"whole.{ending}").read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(content[: len(content) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match=rf"cut.{ending} cannot be read"):
        read_image(tmp_path / f"cut.{ending}")
    assert ImageFile.LOAD_TRUNCATED_IMAGES and Image.MAX_IMAGE_PIXELS is None
