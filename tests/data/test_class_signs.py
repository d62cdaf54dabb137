"""Class folders with an equals sign in their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certimed.data import open_dataset
from certimed.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("grade=1", "grade=2"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name / "a.png")
    return tmp_path


def test_folders_with_a_sign_are_classes_of_that_name(folder: Path) -> None:
    found = open_dataset(folder)
    assert found.class_names == ("grade=1", "grade=2")
    assert [item.label for item in found.items] == [0, 1]


def test_they_are_mapped_by_the_last_sign(folder: Path) -> None:
    found = open_dataset(folder, classes=["grade=2=bad", "grade=1=good"])
    assert found.class_names == ("bad", "good")
    assert [item.label for item in found.items] == [1, 0]
    with pytest.raises(InputError, match="'grade=1=words'"):
        open_dataset(folder, classes=["a", "b"])
