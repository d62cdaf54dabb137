"""Whole-slide images: a level, patches on a grid or from a table, stable ids, and no thumbnail in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from certimed.data import IntensityReport, ReadOptions, identity, open_dataset, read_image
from certimed.errors import ImageError, InputError

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")
pytest.importorskip("zarr")

FULL = np.random.default_rng(8).integers(0, 256, (160, 200, 3), dtype=np.uint8)
HALF = np.ascontiguousarray(FULL[::2, ::2])
THUMBNAIL = np.zeros((10, 12, 3), np.uint8)
DESCRIPTION = "Aperio Image Library v11.2.1\n200x160 [0,0 200x160] (32x32) |AppMag = 20|MPP = 0.5"


def slide(path: Path) -> Path:
    """A file as Aperio's scanners write them: level 0, thumbnail, level 1, all on pages of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "rgb", "metadata": None}
        writer.write(FULL, tile=(32, 32), compression="zlib", description=DESCRIPTION, **options)
        writer.write(THUMBNAIL, description=DESCRIPTION, rowsperstrip=16, **options)
        writer.write(HALF, tile=(32, 32), compression="zlib", description=DESCRIPTION, **options)
    return path


def pyramid(path: Path) -> Path:
    """An OME-TIFF pyramid: level 1 in a sub-IFD."""
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(FULL, tile=(32, 32), photometric="rgb", subifds=1)
        writer.write(HALF, tile=(32, 32), photometric="rgb", subfiletype=1)
    return path


def unit(values: np.ndarray) -> np.ndarray:
    return values.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("make", [slide, pyramid])
def test_levels(tmp_path: Path, make: object) -> None:
    path = make(tmp_path / "a.svs")  # type: ignore[operator]
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, unit(FULL))
    assert "level 0 of 2" in image.intensity
    np.testing.assert_array_equal(read_image(path, ReadOptions(level=1)).pixels, unit(HALF))
    with pytest.raises(ImageError, match="level 2 was asked for and it has 2"):
        read_image(path, ReadOptions(level=2))
    with pytest.raises(ImageError, match=r"whole-slide image, too large .* level 0 \(levels: 200 x 160, 100 x 80"):
        read_image(path, ReadOptions(max_pixels=9000))


def test_thumbnail_is_left_out_and_said(tmp_path: Path) -> None:
    image = read_image(slide(tmp_path / "a.svs"))
    assert "1 further images of the file" in image.intensity
    report = IntensityReport([image])
    assert any("further images, left out (e.g. a.svs: " in warning for warning in report.warnings)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("make", [slide, pyramid])
def test_grid(tmp_path: Path, make: object, level: int) -> None:
    path = make(tmp_path / "a.svs")  # type: ignore[operator]
    source = (FULL, HALF)[level]
    dataset = open_dataset(path, patches="grid:48", options=ReadOptions(level=level))
    assert len(dataset) == (source.shape[0] // 48) * (source.shape[1] // 48)
    assert len(set(dataset.ids)) == len(dataset)
    assert dataset.ids[1] == f"a.svs#l{level}x{48 * 2**level}y0w48h48"
    for index in range(len(dataset)):
        row, column = divmod(index, source.shape[1] // 48)
        image = dataset.load(index)
        np.testing.assert_array_equal(image.pixels, unit(source[row * 48 :, column * 48 :][:48, :48]))
        assert {"tifffile", "zarr"} <= set(image.decoders)
        assert image.group == "a.svs"


def test_table_over_slides_in_class_folders(tmp_path: Path) -> None:
    slide(tmp_path / "set" / "benign" / "a.svs")
    slide(tmp_path / "set" / "tumour" / "b.svs")
    table = tmp_path / "patches.csv"
    table.write_text("slide,x,y,size\nbenign/a.svs,10,20,32\nb,0,0,16\nb,184,144,16\n")
    dataset = open_dataset(tmp_path / "set", patches=str(table))
    assert dataset.ids == (
        "benign/a.svs#l0x10y20w32h32",
        "tumour/b.svs#l0x0y0w16h16",
        "tumour/b.svs#l0x184y144w16h16",
    )
    assert dataset.labels == (0, 1, 1)
    assert dataset.groups == ("benign/a.svs", "tumour/b.svs", "tumour/b.svs")
    np.testing.assert_array_equal(dataset.load(0).pixels, unit(FULL[20:52, 10:42]))
    np.testing.assert_array_equal(dataset.load(2).pixels, unit(FULL[144:, 184:]))
    assert identity(dataset) != identity(dataset.subset([0, 1]))
    assert identity(dataset) == identity(open_dataset(tmp_path / "set", patches=str(table)))


def test_patch_outside_fails_alone(tmp_path: Path) -> None:
    table = tmp_path / "patches.csv"
    table.write_text("x,y,width,height\n0,0,8,9\n190,0,20,20\n")
    dataset = open_dataset(slide(tmp_path / "a.svs"), patches=str(table))
    assert dataset.load(0).pixels.shape == (3, 9, 8)
    with pytest.raises(ImageError, match="reaches outside level 0 of 200 x 160"):
        dataset.load(1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y\n1,2\n", "x, y and size"),
        ("x,y,size\n1,2,a\n", "line 2 .* whole numbers"),
        ("x,y,size\n1,2,3\n-1,2,3\n", "line 3 .* negative corner"),
        ("x,y,size\n", "has no row"),
        ("slide,x,y,size\nother.svs,1,2,3\n", "line 2 names other.svs"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "patches.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        open_dataset(slide(tmp_path / "a.svs"), patches=str(tmp_path / "patches.csv"))


@pytest.mark.parametrize("patches", ["grid:", "grid:0", "grid:x", "nowhere.csv"])
def test_bad_choices(tmp_path: Path, patches: str) -> None:
    with pytest.raises(InputError, match="patches="):
        open_dataset(slide(tmp_path / "a.svs"), patches=patches)


def test_what_is_no_slide_stops_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"a\.png cannot be read: patches are cut from TIFF-like slides only"):
        open_dataset(tmp_path, patches="grid:16")
    with pytest.raises(InputError, match="less than one patch of 500 x 500"):
        open_dataset(slide(tmp_path / "b.svs"), patches="grid:500")


def test_tiles_without_data_are_said(tmp_path: Path) -> None:
    tiles = [FULL[row : row + 32, column : column + 32] for row in range(0, 160, 32) for column in range(0, 192, 32)]
    parts = [tile.tobytes() if index else b"" for index, tile in enumerate(tiles)]
    with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
        shape = {"shape": (160, 192, 3), "dtype": np.uint8, "tile": (32, 32)}
        writer.write(iter(parts), **shape, photometric="rgb", metadata=None, description=DESCRIPTION)
    whole = read_image(tmp_path / "a.svs")
    assert "1 empty tiles read as 0" in whole.intensity
    dataset = open_dataset(tmp_path / "a.svs", patches="grid:48")
    first, second = dataset.load(0), dataset.load(1)
    assert "1 empty tiles read as 0" in first.intensity and "empty" not in second.intensity
    np.testing.assert_array_equal(first.pixels, whole.pixels[:, :48, :48])
    assert any("tiles without data" in warning for warning in IntensityReport([first]).warnings)


def test_a_damaged_tile_fails_its_patches_only(tmp_path: Path) -> None:
    path = slide(tmp_path / "a.svs")
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    dataset = open_dataset(path, patches="grid:32")
    with pytest.raises(ImageError, match=r"a\.svs#l0x0y0w32h32 cannot be read"):
        dataset.load(0)
    np.testing.assert_array_equal(dataset.load(1).pixels, unit(FULL[:32, 32:64]))
