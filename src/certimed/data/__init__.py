"""The data room: medical image files and folders in, :class:`MedicalImage` objects out."""

from certimed.data.dataset import Dataset, Item
from certimed.data.files import IMAGE_SUFFIXES
from certimed.data.geometry import Geometry
from certimed.data.hashing import identity, overlap
from certimed.data.images import DEFAULT_READ, MedicalImage, ReadOptions
from certimed.data.opening import open_dataset
from certimed.data.raw import Raw, raw_image
from certimed.data.reading import read_image
from certimed.data.records import Intensity, IntensityReport, Step
from certimed.data.selection import class_balanced, few_shot_indices

__all__ = [
    "DEFAULT_READ",
    "IMAGE_SUFFIXES",
    "Dataset",
    "Geometry",
    "Intensity",
    "IntensityReport",
    "Item",
    "MedicalImage",
    "Raw",
    "ReadOptions",
    "Step",
    "class_balanced",
    "few_shot_indices",
    "identity",
    "open_dataset",
    "overlap",
    "raw_image",
    "read_image",
]
