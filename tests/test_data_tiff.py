"""TIFF: every layout equals the array that was written, whatever tiles, planes, compression and axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from certimed.data import ReadOptions, open_dataset, read_image
from certimed.data.masks import read_mask
from certimed.errors import ImageError

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

RNG = np.random.default_rng(5)
GREY8 = RNG.integers(0, 256, (48, 40), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (48, 40), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (48, 40, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (48, 40, 3), dtype=np.uint16)
RGBA16 = RNG.integers(0, 65536, (48, 40, 4), dtype=np.uint16)


def save(path: Path, values: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, values, **options)
    return path


def unit(values: np.ndarray) -> np.ndarray:
    """Channels first, divided by the largest storable value."""
    values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


LAYOUTS = {
    "strips": {},
    "big endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "tiles": {"tile": (16, 16)},
    "odd strips": {"rowsperstrip": 7},
    "deflate": {"compression": "zlib", "predictor": True},
    "LZW": {"compression": "lzw"},
    "zstd tiles": {"compression": "zstd", "tile": (16, 32)},
    "JPEG 2000": {"compression": "jpeg2000", "compressionargs": {"reversible": True, "level": 0}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("values", "planar"),
    [(GREY8, False), (GREY16, False), (RGB8, False), (RGB16, False), (RGB8, True), (RGB16, True)],
    ids=["grey8", "grey16", "rgb8", "rgb16", "planar rgb8", "planar rgb16"],
)
def test_layouts(tmp_path: Path, values: np.ndarray, planar: bool, layout: str) -> None:
    stored = values.transpose(2, 0, 1) if planar else values
    photometric = "minisblack" if values.ndim == 2 else "rgb"
    planes = {"planarconfig": "separate"} if planar else {}
    path = save(tmp_path / "a.tif", stored, photometric=photometric, **planes, **LAYOUTS[layout])
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, unit(values))
    assert image.decoders["tifffile"] == tifffile.__version__
    assert ("imagecodecs" in image.decoders) == ("compression" in LAYOUTS[layout])


def test_alpha_and_further_samples(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", RGBA16, photometric="rgb", extrasamples=["unassalpha"])
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, unit(RGBA16)[:3])
    assert "alpha dropped" in image.intensity
    premultiplied = np.full((4, 4, 4), 128, np.uint8)
    premultiplied[..., :3] = 64
    path = save(tmp_path / "b.tif", premultiplied, photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_allclose(read_image(path).pixels, 0.5, atol=1e-6)


def test_three_planes_of_ome_are_colours_unless_called_otherwise(tmp_path: Path) -> None:
    planes = RGB8.transpose(2, 0, 1)
    path = save(tmp_path / "a.ome.tif", planes, photometric="minisblack", metadata={"axes": "CYX"})
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, unit(RGB8))
    assert "red, green and blue" in image.intensity
    names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "Cy5"]}}
    path = save(tmp_path / "b.ome.tif", planes, photometric="minisblack", metadata=names)
    with pytest.raises(ImageError, match=r"3 channels \(DAPI, FITC, Cy5\), which are not red, green and blue"):
        read_image(path)
    four = np.concatenate([planes, planes[:1]])
    path = save(tmp_path / "c.ome.tif", four, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(ImageError, match="4 channels"):
        read_image(path)


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX"])
def test_frames_beside_channels(tmp_path: Path, axes: str) -> None:
    stack = RNG.integers(0, 256, (5, 3, 20, 30), dtype=np.uint8)
    stored = stack if axes == "ZCYX" else stack.swapaxes(0, 1)
    path = save(tmp_path / "a.ome.tif", stored, photometric="minisblack", metadata={"axes": axes})
    for frame in (0, 4):
        image = read_image(path, ReadOptions(frame=frame))
        np.testing.assert_array_equal(image.pixels, stack[frame].astype(np.float32) / np.float32(255))
        assert f"frame {frame} of 5" in image.intensity
    with pytest.raises(ImageError, match="frame 5 was asked for and it has 5"):
        read_image(path, ReadOptions(frame=5))


def test_pages_of_different_sizes_are_frames(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GREY8, photometric="minisblack")
        writer.write(GREY8[:9, :7], photometric="minisblack")
    image = read_image(tmp_path / "a.tif", ReadOptions(frame=1))
    np.testing.assert_array_equal(image.pixels, unit(GREY8[:9, :7]))


def test_imagej_stack_in_one_piece(tmp_path: Path) -> None:
    stack = RNG.integers(0, 65536, (6, 20, 30), dtype=np.uint16)
    path = save(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_image(path, ReadOptions(frame=5)).pixels, unit(stack[5]))


def test_numbers_of_every_kind(tmp_path: Path) -> None:
    floats = np.linspace(0, 1, 12).reshape(3, 4)
    for kind in (np.float16, np.float32, np.float64):
        values = floats.astype(kind)
        image = read_image(save(tmp_path / "a.tif", values, photometric="minisblack"))
        np.testing.assert_array_equal(image.pixels[0], values.astype(np.float32))
    with pytest.raises(ImageError, match="floating-point values from 0 to 9 without a stated range; give a window"):
        read_image(save(tmp_path / "b.tif", floats * 9, photometric="minisblack"))
    colours = np.stack([floats * 9] * 3, axis=-1).astype(np.float32)
    with pytest.raises(ImageError, match=r"scale the colours to \[0, 1\]"):
        read_image(save(tmp_path / "c.tif", colours, photometric="rgb"), ReadOptions(window=(4, 8)))
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "d.tif", colours / 9, photometric="rgb")).pixels, (colours / 9).transpose(2, 0, 1)
    )
    with pytest.raises(ImageError, match="complex64 numbers"):
        read_image(save(tmp_path / "e.tif", floats.astype(np.complex64), photometric="minisblack"))
    twelve = RNG.integers(0, 4096, (8, 16), dtype=np.uint16)
    image = read_image(save(tmp_path / "f.tif", twelve, photometric="minisblack", bitspersample=12))
    np.testing.assert_array_equal(image.pixels[0], twelve.astype(np.float32) / np.float32(4095))


def test_nan_needs_a_meaning(tmp_path: Path) -> None:
    values = np.array([[0.25, np.nan], [0.5, 1.0]], np.float32)
    path = save(tmp_path / "a.tif", values, photometric="minisblack")
    with pytest.raises(ImageError, match=r"1 values that are no number .*--nan zero or --nan min"):
        read_image(path)
    assert read_image(path, ReadOptions(nan="zero")).pixels[0, 0, 1] == 0
    image = read_image(path, ReadOptions(nan="min"))
    assert image.pixels[0, 0, 1] == 0.25
    assert "(NaN) read as 0.25 (min)" in image.intensity
    values[0, 0] = np.inf
    with pytest.raises(ImageError, match="infinity"):
        read_image(save(path, values, photometric="minisblack"), ReadOptions(nan="zero"))


def test_inks_palette_and_ycbcr(tmp_path: Path) -> None:
    table = np.zeros((3, 256), np.uint16)
    table[:, 1] = (65535, 256 * 128, 0)
    path = save(tmp_path / "a.tif", np.array([[0, 1]], np.uint8), photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_image(path).pixels[:, 0, 1], np.array([1, 128 / 255, 0], np.float32))
    inks = np.zeros((4, 4, 4), np.uint8)
    inks[..., 1:3] = 255
    path = save(tmp_path / "b.tif", inks, photometric="separated")
    np.testing.assert_array_equal(read_image(path).pixels[:, 0, 0], [1, 0, 0])
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (64, 64, 3))
    path = save(tmp_path / "c.tif", smooth, photometric="rgb", compression="jpeg", subsampling=(2, 2))
    np.testing.assert_allclose(read_image(path).pixels, unit(smooth), atol=0.02)
    assert "YCbCr" in read_image(path).intensity
    path = save(tmp_path / "raw.tif", RGB8, photometric="ycbcr")
    expected = np.asarray(Image.fromarray(RGB8, "YCbCr").convert("RGB"))
    np.testing.assert_allclose(read_image(path).pixels, unit(expected), atol=0.006)
    with pytest.raises(ImageError, match="photometric interpretation CIELAB"):
        read_image(save(tmp_path / "d.tif", RGB8, photometric="cielab"))
    with pytest.raises(ImageError, match="MINISBLACK with 3 samples"):
        read_image(save(tmp_path / "e.tif", RGB8, photometric="minisblack", planarconfig="contig"))


def test_a_palette_of_two_colours_is_looked_up(tmp_path: Path) -> None:
    """tifffile gives 1-bit values as booleans, which index as a mask."""
    bits = np.random.default_rng(1).random((16, 16)) > 0.5
    data = bytearray(save(tmp_path / "a.tif", bits, photometric="minisblack").read_bytes())
    at = data.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01")
    data[at + 8] = 3  # palette, in place of zero is black
    unused = data.index(b"\x31\x01\x02\x00")  # the tag Software becomes ColorMap: two colours
    data[unused : unused + 12] = b"\x40\x01\x03\x00\x06\x00\x00\x00" + len(data).to_bytes(4, "little")
    data += np.array([10, 200, 20, 100, 30, 0], np.uint16).astype("<u2").tobytes()
    (tmp_path / "b.tif").write_bytes(data)
    pixels = read_image(tmp_path / "b.tif").pixels
    expected = np.where(bits[..., None], np.uint8([200, 100, 0]), np.uint8([10, 20, 30]))
    np.testing.assert_array_equal(pixels, unit(expected))


def test_a_header_without_a_photometric_interpretation_is_refused(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "a.tif", GREY8, photometric="minisblack").read_bytes())
    at = data.index(b"\x06\x01\x03\x00\x01\x00\x00\x00")
    data[at : at + 2] = b"\x08\x01"  # the tag becomes one that says nothing of the pixels
    (tmp_path / "b.tif").write_bytes(data)
    with pytest.raises(ImageError, match="does not say whether zero is black or white"):
        read_image(tmp_path / "b.tif")


def test_aperio_jpeg_2000_in_ycbcr_is_made_rgb(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    red = np.broadcast_to(np.array([76, 85, 255], np.uint8), (16, 16, 3))  # pure red in YCbCr
    data = imagecodecs.jpeg2k_encode(red, level=0, codecformat="j2k", mct=False, reversible=True)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        options = {"shape": red.shape, "dtype": np.uint8, "photometric": "rgb", "compression": 33003, "tile": (16, 16)}
        writer.write(iter([data]), **options)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(image.pixels[:, 0, 0], [1, 0, 0], atol=0.01)
    assert "YCbCr converted to RGB" in image.intensity


def test_cut_off_files_fail(tmp_path: Path) -> None:
    for options in ({}, {"compression": "zlib"}, {"tile": (16, 16)}):
        data = save(tmp_path / "a.tif", RGB16, photometric="rgb", **options).read_bytes()
        for share in (0.5, 0.9, 0.999):
            (tmp_path / "b.tif").write_bytes(data[: int(len(data) * share)])
            with pytest.raises(ImageError, match=r"^b\.tif cannot be read: "):
                read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("layout", ["strips", "tiles", "deflate", "LZW", "JPEG 2000", "OME planes", "JPEG"])
def test_damage_never_escapes(tmp_path: Path, layout: str) -> None:
    more: dict[str, dict[str, Any]] = {
        "OME planes": {"metadata": {"axes": "CYX"}, "photometric": "minisblack"},
        "JPEG": {"compression": "jpeg"},
    }
    stored = RGB8.transpose(2, 0, 1) if layout == "OME planes" else RGB8
    name = "a.ome.tif" if layout == "OME planes" else "a.tif"
    options = {"photometric": "rgb", **(more.get(layout) or LAYOUTS[layout])}
    data = save(tmp_path / name, stored, **options).read_bytes()
    generator = np.random.default_rng(3)
    for _ in range(60):
        damaged = np.frombuffer(data, np.uint8).copy()
        spots = generator.integers(0, len(damaged), 6)
        spots[:3] = generator.integers(0, 400, 3)  # where the tags are
        damaged[spots] = generator.integers(0, 256, 6)
        (tmp_path / "b.tif").write_bytes(damaged[: generator.integers(1, len(damaged) + 1)].tobytes())
        try:
            pixels = read_image(tmp_path / "b.tif", ReadOptions(max_pixels=1_000_000)).pixels
        except ImageError as error:
            assert str(error).startswith("b.tif cannot be read: ")
        else:
            assert 0 <= pixels.min() <= pixels.max() <= 1


def test_empty_tiles_fail(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        tiles = iter([np.ones((16, 16), np.uint8).tobytes(), b""])
        writer.write(tiles, shape=(16, 32), dtype=np.uint8, tile=(16, 16), photometric="minisblack")
    with pytest.raises(ImageError, match="some of its strips or tiles are empty"):
        read_image(tmp_path / "a.tif")


def test_size_is_checked_before_decoding(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.zeros((3000, 3000), np.uint8), photometric="minisblack", compression="zlib")
    with pytest.raises(ImageError, match="3000 x 3000 pixels, more than the 1000000 that are read at once"):
        read_image(path, ReadOptions(max_pixels=1_000_000))


def test_masks(tmp_path: Path) -> None:
    ids = RNG.integers(0, 4, (20, 30), dtype=np.uint8)
    for name, options in {"plain": {}, "tiles": {"tile": (16, 16), "compression": "lzw"}}.items():
        mask, _ = read_mask(
            save(tmp_path / f"{name}.tif", ids, photometric="minisblack", **options), ReadOptions(), name="a"
        )
        np.testing.assert_array_equal(mask, ids)
    bits = (255 * (ids > 1)).astype(np.uint8)
    Image.fromarray(bits).convert("1").save(tmp_path / "fax.tif", compression="group4")
    np.testing.assert_array_equal(read_mask(tmp_path / "fax.tif", ReadOptions(), name="a")[0], ids > 1)
    jpeg = save(
        tmp_path / "jpeg.tif", bits, photometric="minisblack", compression="jpeg", compressionargs={"level": 95}
    )
    mask, how = read_mask(jpeg, ReadOptions(), name="a")
    np.testing.assert_array_equal(mask, ids > 1)
    assert "cut at 128" in how
    with pytest.raises(ImageError, match="colour mask"):
        read_mask(save(tmp_path / "c.tif", RGB8, photometric="rgb"), ReadOptions(), name="a")


def test_other_files_of_a_set_are_not_opened(tmp_path: Path) -> None:
    """An OME-TIFF may name files beside it, which neither the item nor its identity covers."""
    ome = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">
    <Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="40" SizeY="48" SizeC="3"
    SizeZ="1" SizeT="1"><TiffData IFD="0" FirstC="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID>
    </TiffData><TiffData IFD="0" FirstC="1" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>
    </Pixels></Image></OME>"""
    path = save(tmp_path / "a.ome.tif", GREY8, photometric="minisblack", description=ome, metadata=None)
    save(tmp_path / "b.ome.tif", GREY8, photometric="minisblack", metadata=None)
    with pytest.raises(ImageError, match="planes that are not in it; save the set as one file"):
        read_image(path)


def test_dataset_lists_slides_and_other_endings(tmp_path: Path) -> None:
    for name in ("a.svs", "b.ndpi", "c.btf"):
        save(tmp_path / name, RGB8, photometric="rgb")
    assert open_dataset(tmp_path).ids == ("a.svs", "b.ndpi", "c.btf")
