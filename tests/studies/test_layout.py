"""Finding published data sets on disk: every documented layout opens, every wrong one gets a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certimed.errors import InputError
from certimed.studies import CLASSIFICATION_DATASETS, class_entries, classification_preset, expected_layout, open_parts
from certimed.studies.prompt_presets import ClassificationPreset


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 6, 3), value % 256, np.uint8)).save(path)


def write_folders(root: Path, preset: ClassificationPreset, train: str, test: str, which: int = 0) -> None:
    for index, item in enumerate(preset.classes):
        # A slash cannot stand in a folder's name.
        folder = item.folders[which].replace("/", " ")
        picture(root / train / folder / f"a{index}.png", index)
        picture(root / test / folder / f"b{index}.png", 100 + index)


@pytest.mark.parametrize("name", CLASSIFICATION_DATASETS)
@pytest.mark.parametrize("which", [0, -2, -1])
def test_folders_named_as_published_as_the_classes_or_by_number(tmp_path: Path, name: str, which: int) -> None:
    preset = classification_preset(name)
    write_folders(tmp_path, preset, "images/train", "images/test", which)
    parts = open_parts(preset, tmp_path)
    assert parts.test.class_names == preset.class_names
    assert parts.train is not None and parts.train.class_names == preset.class_names
    # Image k is of class k whatever the folders' alphabetical order: labels follow the published list.
    assert {int(Path(i.id).stem[1:]): i.label for i in parts.test.items} == dict(enumerate(range(len(preset.classes))))


def test_kather_in_the_folders_of_its_archives(tmp_path: Path) -> None:
    preset = classification_preset("kather")
    write_folders(tmp_path, preset, "NCT-CRC-HE-100K", "CRC-VAL-HE-7K")
    parts = open_parts(preset, tmp_path)
    assert (len(parts.test), len(parts.train or ())) == (9, 9)


def test_skincancer_by_the_table_it_comes_with(tmp_path: Path) -> None:
    preset = classification_preset("skincancer")
    lines = ["file,class,set,malignicy"]
    for index, item in enumerate(preset.classes):
        for part in ("Train", "Validation", "Test"):
            file = f"data/tiles/{part}_{index}.jpg"
            picture(tmp_path / file, index)
            lines.append(f"{file},{item.folders[0]},{part},x")
    (tmp_path / "data" / "tiles-v2.csv").write_text("\n".join(lines))
    parts = open_parts(preset, tmp_path)
    assert [len(parts.test), len(parts.train or ())] == [16, 16]
    assert all("Test_" in item for item in parts.test.ids)
    assert parts.test.class_names == preset.class_names


def test_rsna_by_a_table_with_patients(tmp_path: Path) -> None:
    preset = classification_preset("rsna18")
    lines = ["image,label,split,patient"]
    for index, item in enumerate(preset.classes):
        for part in ("train", "test"):
            picture(tmp_path / f"{part}{index}.png", index)
            lines.append(f"{part}{index}.png,{item.folders[0]},{part},p{part}{index}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    parts = open_parts(preset, tmp_path)
    assert set(parts.test.groups) == {"ptest0", "ptest1", "ptest2"}
    assert sorted(label for label in parts.test.labels if label is not None) == [0, 1, 2]


def test_a_missing_training_part_is_none(tmp_path: Path) -> None:
    preset = classification_preset("pannuke")
    write_folders(tmp_path, preset, "elsewhere", "test")
    assert open_parts(preset, tmp_path).train is None


def test_what_was_expected_and_what_was_found_is_said(tmp_path: Path) -> None:
    preset = classification_preset("kather")
    with pytest.raises(InputError, match=r"is no folder; expected for kather.*ADI.*labels\.csv"):
        open_parts(preset, tmp_path / "none")
    with pytest.raises(InputError, match=r"no test images: expected for kather.*CRC-VAL-HE-7K.*found an empty folder"):
        open_parts(preset, tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(InputError, match=r"found note\.txt, pictures/"):
        open_parts(preset, tmp_path)


def test_a_missing_or_unknown_class_is_named(tmp_path: Path) -> None:
    preset = classification_preset("kather")
    write_folders(tmp_path, preset, "train", "test")
    for path in (tmp_path / "test" / "LYM").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"no image of LYM; expected all 9 classes of kather, found 8"):
        open_parts(preset, tmp_path)
    picture(tmp_path / "test" / "LYM" / "x.png", 3)
    picture(tmp_path / "test" / "OTHER" / "x.png", 3)
    with pytest.raises(InputError, match=r"'OTHER'.*expected for kather"):
        open_parts(preset, tmp_path)


def test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    preset = classification_preset("pannuke")
    picture(tmp_path / "test" / "x.png", 3)
    with pytest.raises(InputError, match="without class subfolders; expected for pannuke"):
        open_parts(preset, tmp_path)


def test_entries_name_every_spelling_once() -> None:
    for preset in CLASSIFICATION_DATASETS.values():
        entries = class_entries(preset)
        stored = [entry.partition("=")[0].casefold() for entry in entries]
        assert len(set(stored)) == len(stored)
        assert list(dict.fromkeys(entry.partition("=")[2] for entry in entries)) == list(preset.class_names)
        assert preset.classes[0].folders[0] in expected_layout(preset)
