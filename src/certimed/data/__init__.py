"""The data room: medical image files and folders in, :class:`MedicalImage` objects out."""

from certimed.data.dataset import Dataset, Item
from certimed.data.images import MedicalImage, ReadOptions
from certimed.data.opening import open_dataset
from certimed.data.reading import read_image

__all__ = [
    "Dataset",
    "Item",
    "MedicalImage",
    "ReadOptions",
    "open_dataset",
    "read_image",
]
