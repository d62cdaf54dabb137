"""Models of every form from the command line to a verified certificate, with no Python where none is needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cli_helper import call
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from toys import shared

FEW = ("--n0", "4", "--n", "40", "--sigma", "0.1", "--progress", "none")


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    """A minimal digital radiograph."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.Modality, image.PhotometricInterpretation, image.SamplesPerPixel = "DX", "MONOCHROME2", 1
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = pixels.astype("<u2").tobytes()
    image.save_as(path, enforce_file_format=True)


@pytest.fixture
def radiographs(tmp_path: Path) -> Path:
    """Two classes of DICOM files."""
    rng = np.random.default_rng(2)
    for index, name in enumerate(("effusion", "normal")):
        (tmp_path / "xray" / name).mkdir(parents=True)
        write_dicom(tmp_path / "xray" / name / "1.dcm", rng.integers(0, 30000 * (index + 1), (70, 80)))
    return tmp_path / "xray"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """One grey image, of odd sizes, with its mask."""
    pixels = np.random.default_rng(2).integers(0, 256, (11, 13), dtype=np.uint8)
    for kind, array in (("images", pixels), ("masks", (pixels > 127).astype(np.uint8))):
        (tmp_path / "scans" / kind).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "scans" / kind / "1.png")
    return tmp_path / "scans"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file for code of one's own in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    yield tmp_path / "own_code.py"
    sys.modules.pop("own_code", None)


def manifest(run: Path) -> Any:
    return json.loads((run / "run.json").read_text())


def test_a_torchvision_checkpoint_and_a_dicom_folder_in_three_commands(tmp_path: Path, radiographs: Path) -> None:
    import torchvision

    network = torchvision.models.squeezenet1_1(num_classes=2)
    torch.save({"model": network.state_dict(), "epoch": 9}, tmp_path / "model_9.pth")
    run = tmp_path / "run"
    model = f"torchvision:squeezenet1_1:{tmp_path / 'model_9.pth'}"
    said = call("certify", "classes", "--model", model, "--data", radiographs, *FEW, "--out", run)
    assert "2 certified, 0 failed" in said.text
    call("verify", run)
    call("report", run, "--out", tmp_path / "page.html")
    assert manifest(run)["classes"] == ["effusion", "normal"]
    assert manifest(run)["model"]["normalisation"]["mean"] == [0.485, 0.456, 0.406]


def test_a_timm_checkpoint_from_the_command_line(tmp_path: Path, radiographs: Path) -> None:
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "w.pth")
    run = tmp_path / "run"
    more = ("--size", "32x32", "--normalise", "0.5;0.25")
    model = f"timm:test_resnet:{tmp_path / 'w.pth'}"
    call("certify", "classes", "--model", model, *more, "--data", radiographs, *FEW, "--out", run)
    assert manifest(run)["model"]["input_shape"] == [3, 32, 32]
    assert manifest(run)["model"]["normalisation"]["std"] == [0.25] * 3
    assert "timm" in manifest(run)["provenance"]["versions"]
    call("verify", run)


def _onnx(path: Path, nodes: list[Any], shapes: tuple[list[Any], list[Any]], weights: dict[str, np.ndarray]) -> Path:
    values = [helper.make_tensor_value_info(*one) for one in zip(("x", "y"), (TensorProto.FLOAT,) * 2, shapes)]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_onnx_classifier_from_the_command_line(tmp_path: Path, radiographs: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    path = _onnx(tmp_path / "m.onnx", nodes, ([2, 1, "h", "w"], [2, 2]), {"w": np.array([[-1.0, 1.0]])})
    run, more = tmp_path / "run", ("--size", "16x16", "--normalise", "0.5;1")
    said = call("certify", "classes", "--model", f"onnx:{path}", *more, "--data", radiographs, *FEW, "--out", run)
    assert "2 certified, 0 failed" in said.text
    assert "onnxruntime" in manifest(run)["provenance"]["dtype"]
    call("verify", run)


def test_onnx_segmenter_behind_an_onnx_denoiser(tmp_path: Path, scans: Path) -> None:
    two = _onnx(
        tmp_path / "segment.onnx",
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        (["n", 1, "h", "w"], ["n", 2, "h", "w"]),
        {"w": np.array([-1.0, 1.0]).reshape(2, 1, 1, 1), "b": np.array([0.5, -0.5])},
    )
    blur = _onnx(
        tmp_path / "blur.onnx",
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)],
        (["n", 1, "h", "w"], ["n", 1, "h", "w"]),
        {"w": np.full((1, 1, 3, 3), 1 / 9)},
    )
    run = tmp_path / "run"
    models = ("--model", f"onnx:{two}", "--output", "logits", "--normalise", "none", "--denoiser", f"onnx:{blur}")
    said = call("certify", "masks", *models, "--data", scans, *FEW, "--n", "100", "--out", run)
    assert "sigma it was trained" in said.text
    assert len(manifest(run)["methods"]) == 2 and manifest(run)["denoiser"]
    call("verify", run)


SEGMENT = ("--model", "python:own_code:network", "--allow-code", "--output", "logits", "--classes", "background,bright")
OWN = """
import torch
from torch import nn
from certimed.denoising import ModuleDenoiser

class Two(nn.Module):
    def forward(self, x):
        x = nn.functional.interpolate(nn.functional.max_pool2d(x, 2), scale_factor=2)
        return torch.cat([0.5 - x, x - 0.5], dim=1)

class Blur(nn.Module):
    def forward(self, x):
        return nn.functional.avg_pool2d(x, 3, 1, 1)

def network(): return nn.Sequential(nn.Conv2d(1, 1, 1), Two())
def denoiser(): return ModuleDenoiser(Blur(), sigma=0.1)
def fails(): return ModuleDenoiser(nn.Conv2d(3, 3, 1), sigma=0.1)
"""


def test_a_python_denoiser_and_a_network_that_halves(code: Path, scans: Path) -> None:
    """The sides 11 and 13 are padded to the multiple that is found by running the network."""
    code.write_text(OWN)
    front = ("--denoiser", "python:own_code:denoiser")
    said = call("certify", "masks", *SEGMENT, *front, "--data", scans, *FEW, "--n", "100", "--out", "run")
    assert "1 certified, 0 failed" in said.text
    call("verify", "run")
    said = call("certify", "masks", *SEGMENT, *front, "--data", scans, "--sigma", "0.2", "--out", "run2", code=2)
    assert "trained for sigma=0.1, not 0.2" in said.text
    blocked = [word for word in SEGMENT if word != "--allow-code"]
    said = call("certify", "masks", *blocked, *front, "--data", scans, *FEW, "--out", "run3", code=2)
    assert "add --allow-code" in said.text


def test_a_denoiser_of_other_channels_is_a_sentence(code: Path, scans: Path) -> None:
    code.write_text(OWN)
    front = ("--denoiser", "python:own_code:fails")
    said = call("certify", "masks", *SEGMENT, *front, "--data", scans, *FEW, "--n", "100", "--out", "run", code=None)
    assert said.code != 0 and "the denoiser fails on images of" in said.text


PUBLISHED = """
import sys; sys.path.append({folder!r})
from certimed.denoising import ModuleDenoiser; import dncnn
def denoiser(): return ModuleDenoiser(dncnn.load("scico-6M"), sigma=0.1)
"""


def test_a_published_denoiser_in_three_lines(code: Path, scans: Path) -> None:
    code.write_text(OWN + PUBLISHED.format(folder=str(shared("models", "dncnn"))))
    front = ("--denoiser", "python:own_code:denoiser")
    call("certify", "masks", *SEGMENT, *front, "--data", scans, *FEW, "--n", "100", "--out", "run")
    call("verify", "run")


@pytest.mark.parametrize("name", ["model.ckpt", "compiled.pth"])
def test_smp_checkpoints_as_training_code_writes_them(
    tmp_path: Path, scans: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(shared("cases", "smp-lightning-buffers", "make.py").read_text(), "make.py", "exec"), {})
    models = ("--model", f"smp:Unet:mobilenet_v2:{name}", "--output", "binary logit", "--methods", "plain")
    few = ("--n0", "2", "--n", "70", "--sigma", "0.1", "--progress", "none", "--batch-size", "24")
    said = call("certify", "masks", *models, "--data", scans, *few, "--out", "run")
    buffers = "are those stored in the checkpoint"
    assert (buffers in said.text) == (name == "model.ckpt")
    assert ("state normalise" in said.text) == (name != "model.ckpt")
    made = manifest(Path("run"))["model"]["normalisation"]
    assert made == {"mean": [0.0] * 3, "std": [1.0] * 3, "channel_order": "rgb"}
    said = call("certify", "masks", *models, "--normalise", "imagenet", "--data", scans, *few, "--out", "stated")
    other = manifest(Path("stated"))
    assert other["model"]["identity"] != manifest(Path("run"))["model"]["identity"]
    assert other["model"]["normalisation"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert other["request"]["normalise"] == "imagenet"


def test_normalisation_restores_the_answers_of_a_network_trained_on_normalised_images(tmp_path: Path) -> None:
    """What the case smp-normalisation lost in silence: the same network asked both ways, and the warning."""
    import segmentation_models_pytorch as smp

    from certimed.segmenters import load_segmenter

    torch.manual_seed(0)
    network = smp.Unet("mobilenet_v2", encoder_weights=None, classes=2).eval()
    network.save_pretrained(str(tmp_path))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        trained = network((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
        silent = load_segmenter(f"smp:{tmp_path}")
        assert not torch.allclose(silent(x), trained, atol=1e-3) and "normalise" in silent.warnings[0]
        for stated in ("imagenet", "0.485,0.456,0.406;0.229,0.224,0.225"):
            model = load_segmenter(f"smp:{tmp_path}", normalise=stated)
            torch.testing.assert_close(model(x), trained, rtol=0, atol=1e-5)
            assert not model.warnings


@pytest.mark.parametrize("stated", ["0.5", "a;b", "0.5;0.5;0.5", "0.5;0", "0.1,0.2;0.3,0.4"])
def test_a_normalisation_that_is_none_is_refused(tmp_path: Path, radiographs: Path, stated: str) -> None:
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "w.pth")
    model = ("--model", f"timm:test_resnet:{tmp_path / 'w.pth'}", "--normalise", stated)
    call("certify", "classes", *model, "--data", radiographs, *FEW, "--out", tmp_path / "run", code=2)


@pytest.mark.parametrize(
    ("verb", "words", "expected"),
    [
        ("masks", ("--model", "sm:Unet:resnet34:w.pth"), "did you mean smp:"),
        ("masks", ("--model", "nothing.onnx"), "did you mean onnx:FILE"),
        ("masks", ("--model", "unet:x", "--denoiser", "difusers:x"), ""),
        ("classes", ("--model", "trochvision:resnet18"), "did you mean torchvision:"),
    ],
)
def test_refusals_on_the_command_line(tmp_path: Path, scans: Path, radiographs: Path, verb, words, expected) -> None:
    data = scans if verb == "masks" else radiographs
    said = call("certify", verb, *words, "--data", data, *FEW, "--out", tmp_path / "run", code=2)
    assert expected in said.text
    if expected:
        assert "python:MODULE:FACTORY" in said.text and f"certimed certify {verb}" in said.text


def test_a_denoiser_s_name_that_is_none_lists_the_forms() -> None:
    from certimed.denoising import load_denoiser
    from certimed.errors import InputError

    with pytest.raises(InputError, match=r"did you mean diffusers:.*onnx:FILE.*python:MODULE:FACTORY.*--denoiser"):
        load_denoiser("difusers:x")
