"""Data sets: layouts, tables, class names, masks, npz, selection, identity."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from certimed.data import (
    Dataset,
    Item,
    MedicalImage,
    ReadOptions,
    class_balanced,
    few_shot_indices,
    identity,
    open_dataset,
    overlap,
)
from certimed.data.dataset import FileStore
from certimed.data.images import DEFAULT_READ
from certimed.errors import ImageError, InputError


def picture(path: Path, value: int = 0, size: tuple[int, int] = (3, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


@pytest.fixture
def classes_folder(tmp_path: Path) -> Path:
    for value, name in enumerate(
        ["viral_pneumonia/b.png", "Normal/z.png", "Normal/a.tif", "viral_pneumonia/deep/c.png"]
    ):
        picture(tmp_path / "set" / name, value)
    for name in (".DS_Store", "Normal/Thumbs.db", "__MACOSX/x.png", ".hidden/y.png"):
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_text("x")
    (tmp_path / "set" / "notes.txt").write_text("x")
    return tmp_path / "set"


class TestClassFolders:
    def test_names_labels_ids(self, classes_folder: Path) -> None:
        dataset = open_dataset(classes_folder)
        assert dataset.ids == ("Normal/a.tif", "Normal/z.png", "viral_pneumonia/b.png", "viral_pneumonia/deep/c.png")
        assert dataset.class_names == ("Normal", "viral_pneumonia")
        assert dataset.labels == (0, 0, 1, 1)
        assert dataset.is_labelled
        assert len(dataset) == 4
        assert dataset.ignored == 1
        image = dataset.load(3)
        assert (image.id, image.label) == ("viral_pneumonia/deep/c.png", 1)
        assert image.pixels[0, 0, 0] == np.float32(3) / np.float32(255)

    def test_given_order_and_spelling(self, classes_folder: Path) -> None:
        dataset = open_dataset(classes_folder, classes=["Viral Pneumonia", "normal", "other"])
        assert dataset.class_names == ("Viral Pneumonia", "normal", "other")
        assert dataset.labels == (1, 1, 0, 0)

    def test_mapping_to_prompt_words_and_merging(self, classes_folder: Path) -> None:
        dataset = open_dataset(classes_folder, classes=["normal=a healthy chest", "viral-pneumonia=pneumonia"])
        assert dataset.class_names == ("a healthy chest", "pneumonia")
        merged = open_dataset(classes_folder, classes=["normal=lung", "viral pneumonia=lung", "other"])
        assert (merged.class_names, set(merged.labels)) == (("lung", "other"), {0})

    @pytest.mark.parametrize(
        ("classes", "words"),
        [
            (["normal"], "'viral_pneumonia', which is none of the classes given"),
            ([], "sequence of class names"),
            ("normal", "sequence of class names"),
            (["=x"], "has no name"),
            (["Normal", "normal"], "twice"),
        ],
    )
    def test_bad_class_lists(self, classes_folder: Path, classes: list[str], words: str) -> None:
        with pytest.raises(InputError, match=words):
            open_dataset(classes_folder, classes=classes)

    def test_split_folders(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            for name in "ab":
                picture(tmp_path / split / name / "1.png")
        with pytest.raises(InputError, match="choose one with split="):
            open_dataset(tmp_path)
        dataset = open_dataset(tmp_path, split="test")
        assert (dataset.ids, dataset.class_names) == (("test/a/1.png", "test/b/1.png"), ("a", "b"))
        with pytest.raises(InputError, match="has test, train"):
            open_dataset(tmp_path, split="val")

    def test_mixed_folder_is_refused(self, classes_folder: Path) -> None:
        picture(classes_folder / "loose.png")
        with pytest.raises(InputError, match="beside its subfolders"):
            open_dataset(classes_folder)


class TestFlat:
    def test_unlabelled(self, tmp_path: Path) -> None:
        for name in ("b.png", "a.PNG", "c.jpeg"):
            picture(tmp_path / name)
        dataset = open_dataset(tmp_path)
        assert dataset.ids == ("a.PNG", "b.png", "c.jpeg")
        assert dataset.labels == (None, None, None)
        assert dataset.class_names is None
        assert open_dataset(tmp_path, classes=["x=one", "y"]).class_names == ("one", "y")

    def test_single_file(self, tmp_path: Path) -> None:
        dataset = open_dataset(picture(tmp_path / "a.png"), classes=["x=one", "y"])
        assert (dataset.ids, dataset.class_names) == (("a.png",), ("one", "y"))
        with pytest.raises(InputError, match="single image"):
            open_dataset(tmp_path / "a.png", split="test")

    def test_nothing_there(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(InputError, match="holds no image"):
            open_dataset(tmp_path)
        with pytest.raises(InputError, match="no file or folder"):
            open_dataset(tmp_path / "nowhere")

    def test_dicom_without_an_ending_is_found(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.png")
        (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
        (tmp_path / "1.2.840.99").write_bytes(bytes(128) + b"DICM")
        (tmp_path / "README").write_text("x")
        dataset = open_dataset(tmp_path)
        assert dataset.ids == ("1.2.840.99", "IM0001", "a.png")
        assert dataset.ignored == 1

    def test_linked_folders_are_not_followed(self, tmp_path: Path) -> None:
        picture(tmp_path / "set" / "a.png")
        (tmp_path / "set" / "loop").symlink_to(tmp_path / "set", target_is_directory=True)
        (tmp_path / "set" / "b.png").symlink_to(picture(tmp_path / "elsewhere.png", 7))
        dataset = open_dataset(tmp_path / "set")
        assert dataset.ids == ("a.png", "b.png")
        assert dataset.load(1).pixels[0, 0, 0] == np.float32(7) / np.float32(255)

    def test_names_that_are_not_utf8(self, tmp_path: Path) -> None:
        data = picture(tmp_path / "a.png").read_bytes()
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(data)
        for name in open_dataset(tmp_path).ids:
            name.encode()

    def test_one_class_stops_once(self, tmp_path: Path) -> None:
        picture(tmp_path / "set" / "normal" / "a.png")
        with pytest.raises(InputError, match=r"images of one class only \(normal\).*name all its classes"):
            open_dataset(tmp_path / "set")
        assert open_dataset(tmp_path / "set", classes=["normal", "sick"]).labels == (0,)
        assert open_dataset(tmp_path / "set" / "normal").labels == (None,)

    def test_dicom_objects_without_an_image_are_skipped_and_counted(self, tmp_path: Path) -> None:
        pytest.importorskip("pydicom")
        from dicom_files import write

        for name in ("a/1.dcm", "b/2.dcm"):
            (tmp_path / "set" / name).parent.mkdir(parents=True)
            write(tmp_path / "set" / name, np.zeros((2, 2), np.uint8))
        directory, report, structures = (
            "1.2.840.10008.1.3.10",
            "1.2.840.10008.5.1.4.1.1.88.11",
            "1.2.840.10008.5.1.4.1.1.481.3",
        )
        for name, uid in {"DICOMDIR": directory, "00000001": directory, "b/sr.dcm": report, "b/rt": structures}.items():
            head = b"\x02\x00\x02\x00UI" + len(uid).to_bytes(2, "little") + uid.encode()
            (tmp_path / "set" / name).write_bytes(bytes(128) + b"DICM" + head)
        (tmp_path / "set" / "dicomdir").write_bytes(b"an old one without a preamble")
        dataset = open_dataset(tmp_path / "set")
        assert (dataset.ids, dataset.ignored) == (("a/1.dcm", "b/2.dcm"), 5)
        segmentation = "1.2.840.10008.5.1.4.1.1.66.4"  # an image, beside raw data (66), which is none
        path = write(tmp_path / "set" / "b" / "seg.dcm", np.zeros((2, 2), np.uint8), SOPClassUID=segmentation)
        assert path.name in {Path(name).name for name in open_dataset(tmp_path / "set").ids}

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*git lfs pull"),
            (b"../.git/annex/objects/aa/bb/MD5E-s1--0.png", "git-annex pointer.*git annex get"),
            (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
            (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000 file, which is read inside TIFF and DICOM only"),
        ],
    )
    def test_what_stands_where_an_image_should_is_named(self, tmp_path: Path, content: bytes, words: str) -> None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ImageError, match=rf"^a\.png cannot be read: .*{words}"):
            open_dataset(tmp_path).load(0)
        if "JPEG" not in words:
            (tmp_path / "labels.csv").write_bytes(content)
            (tmp_path / "a.npz").write_bytes(content)
            for path in (tmp_path, tmp_path / "a.npz"):
                with pytest.raises(InputError, match=f"cannot be read.*{words}"):
                    open_dataset(path)


class TestTables:
    def write(self, folder: Path, text: str, encoding: str = "utf-8") -> Path:
        for value, name in enumerate(["a.png", "b.png", "sub/c.png"]):
            picture(folder / name, value)
        (folder / "table.csv").write_text(text, encoding=encoding)
        return folder / "table.csv"

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_by_name(self, tmp_path: Path, delimiter: str, encoding: str) -> None:
        rows = ["Filename,Label,patient", "b.png,sick,p2", "a.png,well,p1", "sub/c.png,Sick,p2"]
        table = self.write(tmp_path, "\n".join(rows).replace(",", delimiter), encoding)
        dataset = open_dataset(tmp_path, labels=table, classes=["well", "sick"])
        assert dataset.ids == ("a.png", "b.png", "sub/c.png")
        assert dataset.labels == (0, 1, 1)
        assert dataset.groups == ("p1", "p2", "p2")
        assert dataset.ignored == 0
        assert dataset.load(2).pixels[0, 0, 0] == np.float32(2) / np.float32(255)

    def test_by_index_and_by_stem(self, tmp_path: Path) -> None:
        table = self.write(tmp_path, "image,class\nb,1\na,0\n")
        dataset = open_dataset(tmp_path, labels=table)
        assert (dataset.ids, dataset.labels, dataset.class_names) == (("a.png", "b.png"), (0, 1), None)
        assert dataset.ignored == 1
        assert open_dataset(tmp_path, labels=table, classes=["x", "y"]).class_names == ("x", "y")
        with pytest.raises(InputError, match=r"line 2 .* has label 1 and there are 1 classes"):
            open_dataset(tmp_path, labels=table, classes=["x"])

    def test_labels_csv_is_found(self, tmp_path: Path) -> None:
        self.write(tmp_path, "image,class,split\na.png,x,train\nb.png,y,test\nc.png,x,test\n").rename(
            tmp_path / "labels.csv"
        )
        assert open_dataset(tmp_path).class_names == ("x", "y")
        assert open_dataset(tmp_path, split="test").ids == ("b.png", "c.png")
        with pytest.raises(InputError, match="it has test, train"):
            open_dataset(tmp_path, split="val")

    def test_columns_by_name(self, tmp_path: Path) -> None:
        table = self.write(tmp_path, "ID,Diagnosis,label\na,sick,1\nb,well,2\n")
        dataset = open_dataset(tmp_path, labels=table, image_column="id", label_column="diagnosis")
        assert (dataset.ids, dataset.labels, dataset.class_names) == (("a.png", "b.png"), (0, 1), ("sick", "well"))
        with pytest.raises(InputError, match=r"has no column dx: its header is ID, Diagnosis, label"):
            open_dataset(tmp_path, labels=table, image_column="id", label_column="dx")
        with pytest.raises(
            InputError, match=r"no image column.*if it is ID, say so with image_column='ID' \(--image-column ID\)"
        ):
            open_dataset(tmp_path, labels=table)
        table = self.write(tmp_path, "file,Finding Labels\na,sick\n")
        with pytest.raises(InputError, match="if it is Finding Labels, say so with label_column='Finding Labels'"):
            open_dataset(tmp_path, labels=table)
        with pytest.raises(InputError, match="image_column='x' is of no use for the single image"):
            open_dataset(tmp_path / "a.png", image_column="x")

    def test_a_missing_file_fails_alone(self, tmp_path: Path) -> None:
        dataset = open_dataset(tmp_path, labels=self.write(tmp_path, "image,class\na.png,x\ngone.png,y\n"))
        dataset.load(0)
        with pytest.raises(ImageError, match=r"gone\.png cannot be read: there is no such file"):
            dataset.load(1)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "is empty"),
            ("a,b\n1,2\n", "no image column"),
            ("image,b\n1,2\n", "no label column"),
            ("image,label\n", "has no row"),
            ("image,label\na.png,x\n,y\n", "line 3 .* has no image"),
            ("image,label\na.png,\n", "line 2 .* has no label"),
            ("image,label\na.png\n", "line 2 .* has no label"),
            ("image,label\na.png,x\na.png,y\n", "line 3 .* repeats a.png of line 2"),
            ("image,label\n../a.png,x\n", "line 2 .* outside the folder"),
            ("image,label\n/etc/a.png,x\n", "line 2 .* outside the folder"),
            ("image,label\nnone.png,x\n", "none of the 1 images"),
        ],
    )
    def test_bad_tables(self, tmp_path: Path, text: str, words: str) -> None:
        with pytest.raises(InputError, match=words):
            open_dataset(tmp_path, labels=self.write(tmp_path, text))


class TestMasks:
    def pair(self, folder: Path, name: str, mask: np.ndarray, ending: str = "png", suffix: str = "") -> None:
        picture(folder / "images" / f"{name}.png", 9, mask.shape[:2])
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "masks" / f"{name}{suffix}.{ending}")

    def load(self, folder: Path, **options: object) -> MedicalImage:
        return open_dataset(folder, **options).load(0)

    def test_class_ids(self, tmp_path: Path) -> None:
        mask = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
        self.pair(tmp_path, "a", mask)
        dataset = open_dataset(tmp_path, classes=["background", "right lung", "left lung", "heart"])
        assert dataset.has_masks
        assert dataset.ids == ("a.png",)
        assert dataset.labels == (None,)
        image = dataset.load(0)
        assert image.mask is not None
        assert image.mask.dtype == np.int64
        np.testing.assert_array_equal(image.mask, mask)
        with pytest.raises(ImageError, match="class id 3 and there are 2 classes"):
            self.load(tmp_path, classes=["background", "lung"])

    @pytest.mark.parametrize("suffix", ["", "_mask", "_segmentation"])
    def test_0_and_255(self, tmp_path: Path, suffix: str) -> None:
        self.pair(tmp_path, "a", np.array([[0, 255], [255, 0]], np.uint8), "tif", suffix)
        image = self.load(tmp_path, classes=["background", "lesion"])
        np.testing.assert_array_equal(image.mask, [[0, 1], [1, 0]])
        assert image.mask_reading == "mask value 255 read as class 1"

    def test_empty_mask_one_bit_palette_and_grey_rgb(self, tmp_path: Path) -> None:
        ids = np.array([[0, 1], [2, 1]], np.uint8)
        palette = Image.fromarray(ids)
        palette = palette.convert("P")
        palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
        for name, mask, wanted in (
            ("empty", Image.fromarray(np.zeros((2, 2), np.uint8)), np.zeros((2, 2))),
            ("bits", Image.fromarray(ids > 0), ids > 0),
            ("palette", palette, ids),
            ("grey", Image.fromarray(np.dstack([ids] * 3)), ids),
        ):
            picture(tmp_path / name / "images" / "a.png", 9, (2, 2))
            (tmp_path / name / "masks").mkdir()
            mask.save(tmp_path / name / "masks" / "a.png")
            np.testing.assert_array_equal(self.load(tmp_path / name).mask, wanted)

    def test_jpeg(self, tmp_path: Path) -> None:
        mask = np.zeros((32, 32), np.uint8)
        mask[8:24, 8:24] = 255
        self.pair(tmp_path, "a", mask, "jpg")
        image = self.load(tmp_path)
        np.testing.assert_array_equal(image.mask, mask // 255)
        assert "cut at 128" in (image.mask_reading or "")
        self.pair(tmp_path, "a", np.full((8, 8), 3, np.uint8), "jpg")
        with pytest.raises(ImageError, match="JPEG changes class ids"):
            self.load(tmp_path)

    @pytest.mark.parametrize(
        ("mask", "words"),
        [
            (np.dstack([np.eye(2), np.zeros((2, 2)), np.zeros((2, 2))]).astype(np.uint8), "colour mask"),
            (np.array([[0, 1], [2, 255]], np.uint8), "255 beside other class ids"),
        ],
    )
    def test_refused_values(self, tmp_path: Path, mask: np.ndarray, words: str) -> None:
        self.pair(tmp_path, "a", mask)
        with pytest.raises(ImageError, match=f"the mask a.png of a.png cannot be read: .*{words}"):
            self.load(tmp_path)

    def test_sizes_and_missing_masks(self, tmp_path: Path) -> None:
        self.pair(tmp_path, "a", np.zeros((4, 4), np.uint8))
        picture(tmp_path / "images" / "a.png", 9, (5, 6))
        picture(tmp_path / "images" / "b.png")
        picture(tmp_path / "masks" / "stray.png")
        dataset = open_dataset(tmp_path)
        assert dataset.ignored == 1
        with pytest.raises(ImageError, match=r"its mask is 4x4 .* and the image 5x6"):
            dataset.load(0)
        with pytest.raises(ImageError, match=r"b\.png cannot be used: no mask"):
            dataset.load(1)

    def test_masks_option_and_no_match(self, tmp_path: Path) -> None:
        self.pair(tmp_path, "a", np.zeros((4, 4), np.uint8))
        dataset = open_dataset(tmp_path / "images", masks=tmp_path / "masks")
        assert dataset.ids == open_dataset(tmp_path).ids
        with pytest.raises(InputError, match="not a folder"):
            open_dataset(tmp_path / "images", masks=tmp_path / "none")
        (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "q.png")
        with pytest.raises(InputError, match="no mask in"):
            open_dataset(tmp_path)

    def test_masks_inside_the_folder_of_images_are_no_images(self, tmp_path: Path) -> None:
        self.pair(tmp_path, "a", np.array([[0, 255]], np.uint8))
        (tmp_path / "masks").rename(tmp_path / "images" / "truth")
        dataset = open_dataset(tmp_path / "images", masks=tmp_path / "images" / "truth")
        assert (dataset.ids, dataset.ignored) == (("a.png",), 0)
        np.testing.assert_array_equal(dataset.load(0).mask, [[0, 1]])

    def test_labels_csv_beside_images_and_masks(self, tmp_path: Path) -> None:
        self.pair(tmp_path, "a", np.array([[0, 255]], np.uint8))
        (tmp_path / "labels.csv").write_text("image,label\na,naevus\n")
        dataset = open_dataset(tmp_path)
        assert (dataset.ids, dataset.labels, dataset.class_names) == (("a.png",), (0,), ("naevus",))
        assert dataset.has_masks

    def test_labels_and_masks_together(self, tmp_path: Path) -> None:
        self.pair(tmp_path, "a", np.array([[0, 255]], np.uint8))
        (tmp_path / "t.csv").write_text("image,label\na,naevus\n")
        image = self.load(tmp_path / "images", labels=tmp_path / "t.csv", masks=tmp_path / "masks")
        assert image.label == 0
        np.testing.assert_array_equal(image.mask, [[0, 1]])

    def test_one_mask_serves_every_frame(self, tmp_path: Path) -> None:
        self.pair(tmp_path, "a", np.array([[0, 255]], np.uint8))
        frames = [Image.new("L", (2, 1), value) for value in (0, 51)]
        frames[0].save(tmp_path / "images" / "a.png", save_all=True, append_images=frames[1:])
        image = self.load(tmp_path, options=ReadOptions(frame=1))
        np.testing.assert_array_equal(image.mask, [[0, 1]])
        assert image.pixels[0, 0, 0] == np.float32(0.2)
        nibabel = pytest.importorskip("nibabel")
        volume = np.arange(24.0).reshape(2, 3, 4)
        for folder, data in (("images", np.stack([volume, volume], axis=-1)), ("masks", volume % 2)):
            (tmp_path / "4d" / folder).mkdir(parents=True)
            nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "4d" / folder / "a.nii")
        mask = self.load(tmp_path / "4d", options=ReadOptions(frame=1)).mask
        np.testing.assert_array_equal(mask, np.rot90(volume[:, :, 2]) % 2)

    def test_nifti_pairs_are_sliced_alike(self, tmp_path: Path) -> None:
        nibabel = pytest.importorskip("nibabel")
        volume = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
        for folder, data in (("images", volume), ("masks", (volume > 0).astype(np.uint8))):
            (tmp_path / folder).mkdir()
            nibabel.save(nibabel.Nifti1Image(data, np.diag([-1.0, 1, 1, 1])), tmp_path / folder / "a.nii.gz")
        image = self.load(tmp_path, options=ReadOptions(axis="coronal", percentiles=(0, 100)))
        low, high = volume.min(), volume.max()
        np.testing.assert_array_equal(image.mask, image.pixels[0] * (high - low) + low > 0)


class TestNpz:
    def save(self, path: Path, **arrays: object) -> Path:
        np.savez_compressed(path, **arrays)
        return path

    @pytest.mark.parametrize(
        ("images", "expected"),
        [
            (np.array([[[0, 255]]], np.uint8), [[[0, 1]]]),
            (np.array([[[0, 65535]]], np.uint16), [[[0, 1]]]),
            (np.array([[[0.25, 1]]], np.float64), [[[0.25, 1]]]),
            (np.array([[[True, False]]]), [[[1, 0]]]),
            (np.array([[[[0, 51, 255]]]], np.uint8), [[[0]], [[0.2]], [[1]]]),
            (np.array([[[[0, 51]], [[51, 0]], [[255, 0]]]], np.uint8), [[[0, 0.2]], [[0.2, 0]], [[1, 0]]]),
        ],
    )
    def test_exact_values(self, tmp_path: Path, images: np.ndarray, expected: list[object]) -> None:
        image = open_dataset(self.save(tmp_path / "a.npz", images=images)).load(0)
        np.testing.assert_array_equal(image.pixels, np.array(expected, np.float32))
        assert image.id == "000000"
        assert image.source.endswith("a.npz[0]")

    def test_everything(self, tmp_path: Path) -> None:
        path = self.save(
            tmp_path / "a.npz",
            images=np.zeros((3, 2, 2), np.uint8),
            labels=np.array([[0], [1], [0]]),
            class_names=np.array(["normal", "viral pneumonia"]),
            files=np.array(["x\\1.png", "x/2.png", "x/3.png"]),
            split=np.array(["train", "test", "test"]),
            patient=np.array([7, 7, 8]),
        )
        dataset = open_dataset(path, split="Test")
        assert (dataset.ids, dataset.labels, dataset.groups) == (("x/2.png", "x/3.png"), (1, 0), ("7", "8"))
        assert open_dataset(path, classes=["viral_pneumonia=sick", "Normal"]).labels == (1, 0, 1)
        with pytest.raises(InputError, match="has test, train"):
            open_dataset(path, split="val")
        with pytest.raises(InputError, match="none of the classes given"):
            open_dataset(path, classes=["normal"])

    def test_masks_and_their_names(self, tmp_path: Path) -> None:
        path = self.save(
            tmp_path / "a.npz",
            images=np.zeros((1, 1, 3), np.uint8),
            masks=np.array([[[0, 255, 0]]], np.uint8),
            masks_multi=np.array([[[0, 2, 1]]], np.uint8),
            class_names=np.array(["background", "lung"]),
            class_names_multi=np.array(["background", "left", "right"]),
        )
        np.testing.assert_array_equal(open_dataset(path).load(0).mask, [[0, 1, 0]])
        multi = open_dataset(path, masks="masks_multi")
        assert multi.class_names == ("background", "left", "right")
        np.testing.assert_array_equal(multi.load(0).mask, [[0, 2, 1]])
        assert open_dataset(path, classes=["background", "lung=lung field"]).class_names == ("background", "lung field")
        with pytest.raises(InputError, match="keep that order"):
            open_dataset(path, classes=["lung", "background"])

    def test_medmnist_layout(self, tmp_path: Path) -> None:
        arrays = {f"{s}_images": np.zeros((2, 4, 4, 3), np.uint8) for s in ("train", "test")}
        labels = {f"{s}_labels": np.array([[1], [0]], np.uint8) for s in ("train", "test")}
        path = self.save(tmp_path / "a.npz", **arrays, **labels)
        with pytest.raises(InputError, match="choose one with split=: test, train"):
            open_dataset(path)
        dataset = open_dataset(path, split="test", classes=["x", "y"])
        assert (dataset.ids, dataset.labels) == (("test_000000", "test_000001"), (1, 0))
        assert dataset.class_names == ("x", "y")

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"pictures": np.zeros((1, 2, 2))}, "no array images"),
            ({"images": np.zeros((2, 2))}, "of shape"),
            ({"images": np.zeros((1, 2, 2, 5))}, "of shape"),
            ({"images": np.zeros((0, 2, 2))}, "of shape"),
            ({"images": np.array([None, {}])}, "of shape"),
            ({"images": np.zeros((2, 2, 2)), "labels": np.zeros(3, int)}, "2 rows are needed"),
            ({"images": np.zeros((1, 2, 2)), "labels": np.zeros((1, 3), int)}, "one class index or name"),
            ({"images": np.zeros((1, 2, 2)), "labels": np.array([-1])}, "row 0 .* is -1"),
            ({"images": np.zeros((1, 2, 2)), "labels": np.array([2]), "class_names": np.array(["a", "b"])}, "is 2"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(InputError, match=words):
            open_dataset(tmp_path / "a.npz")

    def test_pickle_is_never_loaded(self, tmp_path: Path) -> None:
        labels = np.array(["a", None], dtype=object)
        np.savez(tmp_path / "a.npz", images=np.zeros((2, 2, 2)), labels=labels)
        with pytest.raises(InputError, match="pickled Python objects, which are refused"):
            open_dataset(tmp_path / "a.npz")

    def test_broken_files(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
        data = bytearray(self.save(tmp_path / "a.npz", images=pixels).read_bytes())
        (tmp_path / "b.npz").write_bytes(data[:300])
        with pytest.raises(InputError, match="cannot be read as an npz"):
            open_dataset(tmp_path / "b.npz")
        data[9000] ^= 0xFF
        (tmp_path / "c.npz").write_bytes(data)
        with pytest.raises(ImageError, match=r"000000 cannot be read: .*is broken"):
            open_dataset(tmp_path / "c.npz").load(0)

    @pytest.mark.parametrize("value", [1.5, -0.1, np.nan])
    def test_floats_outside_the_range_fail_alone(self, tmp_path: Path, value: float) -> None:
        dataset = open_dataset(self.save(tmp_path / "a.npz", images=np.array([[[value]], [[0.5]]])))
        with pytest.raises(ImageError, match="000000 cannot be read"):
            dataset.load(0)
        assert dataset.load(1).pixels.item() == 0.5

    def test_window_for_integers_without_a_range(self, tmp_path: Path) -> None:
        path = self.save(tmp_path / "a.npz", images=np.array([[[-1000, 0, 1000]]], np.int16))
        with pytest.raises(ImageError, match="without a stated range"):
            open_dataset(path).load(0)
        read = open_dataset(path, options=ReadOptions(window=(0, 2000))).load(0)
        np.testing.assert_array_equal(read.pixels, [[[0, 0.5, 1]]])


def labelled(sizes: list[int], groups: bool = False) -> Dataset:
    items = [
        Item(f"{label}/{i}", Path("none"), label, f"g{i // 2}" if groups else None)
        for label, size in enumerate(sizes)
        for i in range(size)
    ]
    return Dataset(tuple(items), tuple(f"class {i}" for i in range(len(sizes))), "x", 0, DEFAULT_READ, FileStore())


class TestSelection:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 60), st.integers(0, 9), st.randoms())
    def test_class_balanced(self, sizes: list[int], n: int, seed: int, random: object) -> None:
        dataset = labelled(sizes)
        chosen = class_balanced(dataset, n, seed)
        assert len(chosen) == min(n, len(dataset))
        counts = [chosen.labels.count(label) for label in range(len(sizes))]
        for count, size in zip(counts, sizes):
            assert count == size or count >= max(counts) - 1
        assert set(chosen.ids) <= set(class_balanced(dataset, n + 1, seed).ids)
        order = list(range(len(dataset)))
        random.shuffle(order)  # type: ignore[attr-defined]
        assert set(class_balanced(dataset.subset(order), n, seed).ids) == set(chosen.ids)

    def test_seeds_differ_and_unlabelled_works(self) -> None:
        dataset = labelled([50, 50])
        assert class_balanced(dataset, 10, 0).ids != class_balanced(dataset, 10, 1).ids
        plain = Dataset(tuple(Item(str(i), Path("x")) for i in range(9)), None, "x", 0, DEFAULT_READ, FileStore())
        assert len(class_balanced(plain, 4)) == 4
        with pytest.raises(InputError, match="n=0"):
            class_balanced(dataset, 0)

    def test_few_shot(self) -> None:
        dataset = labelled([8, 9])
        indices = few_shot_indices(dataset, 3, 1)
        assert indices == sorted(indices)
        assert [dataset.labels[i] for i in indices] == [0] * 3 + [1] * 3
        test = class_balanced(dataset, 8, 0)
        rest = dataset.subset(few_shot_indices(dataset, 4, 1, exclude=test.ids))
        assert not set(rest.ids) & set(test.ids)
        with pytest.raises(InputError, match="has 4 of class 0 left beside the test images"):
            few_shot_indices(dataset, 5, 1, exclude=test.ids)

    def test_few_shot_keeps_groups_apart(self) -> None:
        dataset = labelled([8], groups=True)
        indices = few_shot_indices(dataset, 6, exclude=["0/3"])
        assert {dataset.ids[i] for i in indices}.isdisjoint({"0/2", "0/3"})

    def test_subset_is_checked(self) -> None:
        assert labelled([3]).subset([2, 0]).ids == ("0/2", "0/0")
        with pytest.raises(InputError, match="index 3"):
            labelled([3]).subset([3])


class TestIdentity:
    def test_identity_follows_content_not_place(self, tmp_path: Path) -> None:
        for folder in ("one", "two"):
            for value, name in enumerate(["x/a.png", "y/b.png"]):
                picture(tmp_path / folder / name, value)
        first = identity(open_dataset(tmp_path / "one"))
        assert first == identity(open_dataset(tmp_path / "two"))
        assert first != identity(open_dataset(tmp_path / "one").subset([0]))
        picture(tmp_path / "two" / "y" / "b.png", 9)
        assert first != identity(open_dataset(tmp_path / "two"))
        (tmp_path / "two" / "y" / "b.png").write_bytes(b"")
        assert len(identity(open_dataset(tmp_path / "two"))) == 64

    def test_identity_of_npz_rows(self, tmp_path: Path) -> None:
        pixels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
        np.savez(tmp_path / "a.npz", images=pixels, masks=pixels % 2)
        np.savez_compressed(tmp_path / "b.npz", images=pixels, masks=pixels % 2)
        assert identity(open_dataset(tmp_path / "a.npz")) == identity(open_dataset(tmp_path / "b.npz"))
        np.savez(tmp_path / "b.npz", images=pixels, masks=pixels % 2 * 0)
        assert identity(open_dataset(tmp_path / "a.npz")) != identity(open_dataset(tmp_path / "b.npz"))

    def test_overlap_sees_through_formats(self, tmp_path: Path) -> None:
        for value, name in enumerate(["a.png", "b.png"]):
            picture(tmp_path / "one" / name, value)
        picture(tmp_path / "two" / "copy.bmp", 1)
        (tmp_path / "two" / "broken.png").write_bytes(b"x")
        one, two = open_dataset(tmp_path / "one"), open_dataset(tmp_path / "two")
        assert overlap(one, two) == [("b.png", "copy.bmp")]
        assert one.load(1).pixels_sha256 == two.load(1).pixels_sha256 != one.load(0).pixels_sha256

    def test_repeated_ids_are_refused(self) -> None:
        with pytest.raises(InputError, match="two images named a"):
            Dataset((Item("a", Path("x")), Item("a", Path("y"))), None, "x", 0, DEFAULT_READ, FileStore())


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 2, 2)),
        np.zeros((2, 2), np.float32),
        np.zeros((1, 0, 2), np.float32),
        np.full((1, 1, 1), 1.01, np.float32),
        np.full((1, 1, 1), np.nan, np.float32),
    ],
)
def test_medical_image_checks_itself(pixels: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"^a cannot be used"):
        MedicalImage("a", pixels, None, (), "")


DATA = Path(os.environ.get("CERTIMED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def real(name: str) -> Path:
    path = DATA / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{name}.npz is not there (set CERTIMED_DATA)")
    return path


@pytest.mark.parametrize(
    ("name", "count", "options", "classes", "masks"),
    [
        ("seg_lung_jsrt", 247, {"masks": "masks_multi"}, 4, True),
        ("seg_lung_shenzhen", 566, {}, 2, True),
        ("seg_skin_isic2017", 150, {"split": "val"}, 2, True),
        ("seg_polyp_cvcclinicdb", 612, {}, 2, True),
        ("cls_histo_lc25000", 525, {}, 5, False),
        ("cls_cxr_kermany", 967, {}, 3, False),
    ],
)
def test_real_sets_open(name: str, count: int, options: dict[str, str], classes: int, masks: bool) -> None:
    dataset = open_dataset(real(name), **options)
    assert len(dataset) == count
    assert len(dataset.class_names or ()) == classes
    assert dataset.has_masks == masks
    assert dataset.is_labelled != masks


@pytest.mark.parametrize("key", ["masks", "masks_multi"])
def test_real_pixels_and_masks(key: str) -> None:
    dataset = open_dataset(real("seg_lung_jsrt"), masks=key)
    with np.load(DATA / "seg_lung_jsrt.npz", allow_pickle=False) as arrays:
        pixels, masks = arrays["images"], arrays[key]
    for index in (0, 100, 246):
        image = dataset.load(index)
        np.testing.assert_array_equal(image.pixels[0], pixels[index].astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(image.mask, masks[index])
