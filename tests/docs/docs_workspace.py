"""The folders and models the documentation speaks of, tiny and in the published formats, made as a page names them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import vlm_families
from dicom_files import write
from PIL import Image

from benchmarks.sam_boxes import write_sam
from certimed.studies import classification_preset

SIZE = 32
CLASSES = ("adipose tissue", "mucus", "debris")


def squeezenet(folder: Path) -> None:
    """A checkpoint of torchvision's smallest classifier, of two classes."""
    import torchvision

    torch.save(torchvision.models.squeezenet1_1(num_classes=2).state_dict(), folder / "squeezenet.pth")


def onnx_classifier(folder: Path) -> None:
    """The mean grey level against one half, in the ONNX format."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    weights = numpy_helper.from_array(np.array([[-1, 1]] * 3, np.float32), "w")
    graph = helper.make_graph(nodes, "g", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))


MODELS = {
    "plip": vlm_families.write_transformers_clip,
    "quiltnet": vlm_families.write_open_clip,
    "biomedclip": vlm_families.write_biomedclip,
    "medclip": vlm_families.write_medclip,
    "weights.pth": squeezenet,
    "onnx": onnx_classifier,
}


def write_pictures(folder: Path, count: int, seed: int, channels: int = 3) -> None:
    """Random PNG files, different for each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        shape = (SIZE, SIZE, 3) if channels == 3 else (SIZE, SIZE)
        Image.fromarray(generator.integers(0, 256, shape, np.uint8)).save(folder / f"{seed}-{index}.png")


def class_folders(root: Path, count: int, seed: int, names: tuple[str, ...] = CLASSES) -> None:
    """One subfolder a class."""
    for index, name in enumerate(names):
        write_pictures(root / name, count, 100 * seed + index)


def discs(root: Path, count: int) -> None:
    """Bright discs in ``images/`` and where they are in ``masks/``."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for number in range(count):
        disc = (rows - SIZE // 2) ** 2 + (columns - SIZE // 2) ** 2 < (5 + number % 8) ** 2
        Image.fromarray((disc * 200).astype(np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray((disc * 255).astype(np.uint8)).save(root / "masks" / f"{number}.png")


def radiographs(root: Path) -> None:
    """DICOM files of two classes."""
    generator = np.random.default_rng(8)
    for name in ("effusion", "normal"):
        (root / name).mkdir(parents=True)
        write(root / name / "1.dcm", generator.integers(0, 4096, (SIZE, SIZE), np.uint16), bits=12)


def kather(root: Path) -> None:
    """A training and a test part in the layout of the preset."""
    names = tuple(item.folders[0] for item in classification_preset("kather").classes)
    class_folders(root / "train", 2, 7, names)
    class_folders(root / "test", 1, 8, names)


def smp_network(folder: Path) -> None:
    """As ``save_pretrained`` of segmentation_models_pytorch writes it."""
    import segmentation_models_pytorch as smp

    smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, classes=2).eval().save_pretrained(folder)


def monai_bundle(folder: Path) -> None:
    """A bundle of MONAI's model zoo, in small."""
    from monai.networks.nets import UNet

    shape = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": {"_target_": "UNet", **shape}}))
    torch.save(UNet(**shape).state_dict(), folder / "models" / "model.pt")


def ddpm(folder: Path) -> None:
    """A denoiser as diffusers saves it."""
    import diffusers

    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    shape = {"sample_size": SIZE, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8)}
    unet = diffusers.UNet2DModel(norm_num_groups=4, layers_per_block=1, **blocks, **shape)
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(folder)


def whole_slides(folder: Path) -> None:
    """A slide of two levels, and the places of a table."""
    import tifffile

    folder.mkdir()
    pixels = np.random.default_rng(6).integers(0, 256, (1024, 1024, 3), np.uint8)
    with tifffile.TiffWriter(folder / "a.svs", ome=True) as writer:
        writer.write(pixels, tile=(256, 256), photometric="rgb", subifds=1)
        writer.write(pixels[::2, ::2], tile=(256, 256), photometric="rgb", subfiletype=1)
    (folder / "tumour.csv").write_text("slide,x,y,size\na.svs,100,200,64\n")


def ct_slices(folder: Path) -> None:
    """Two DICOM slices of one study."""
    from dicom_files import write_series

    values = np.random.default_rng(7).integers(-200, 200, (SIZE, SIZE, 2))
    write_series(folder, values, np.diag([-0.7, -0.7, 2.0, 1.0]))


# Name in the documentation -> what makes it.
PLACES: dict[str, Callable[[Path], None]] = {
    "slides": lambda place: class_folders(place, 2, 1),
    "labelled": lambda place: class_folders(place, 3, 2),
    "unlabelled": lambda place: write_pictures(place, 4, 3),
    "xrays": lambda place: discs(place, 3),
    "wsi": whole_slides,
    "ct": ct_slices,
    "xrays-train": lambda place: write_pictures(place, 4, 4, channels=1),
    "photographs": lambda place: class_folders(place, 2, 5, ("dark", "bright")),
    "radiographs": radiographs,
    "my_unet": smp_network,
    "my_bundle": monai_bundle,
    "my_medsam": write_sam,
    "my_ddpm": ddpm,
    "data/kather": kather,
    "data/montgomery": lambda place: discs(place, 10),
}


def furnish(workspace: Path, text: str) -> None:
    """Make every place the text names, and the models it asks a hub for."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, make in PLACES.items():
            if re.search(rf"(?<![\w/-]){re.escape(name)}(?![\w-])", text):
                make(workspace / name)
        for name, write in MODELS.items():
            if name in text.lower():
                (workspace / "MODELS" / name).mkdir(parents=True)
                write(workspace / "MODELS" / name)
