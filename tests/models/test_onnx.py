"""ONNX files as classifiers, segmenters and denoisers: the answers are onnxruntime's, the identity is the file's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from certimed.classifiers import load_classifier
from certimed.denoising import load_denoiser
from certimed.engine.contract import refuse_what_is_no_function
from certimed.errors import InputError, ModelError
from certimed.segmenters import load_segmenter

RNG = np.random.default_rng(3)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
HEAD = RNG.normal(size=(4, 5)).astype(np.float32)
MASK = RNG.normal(size=(2, 3, 3, 3)).astype(np.float32)
GREY = (np.eye(1)[:, :, None, None] * np.full((1, 1, 3, 3), 1 / 9)).astype(np.float32)


def _model(nodes: list[Any], shapes: tuple[list[Any], list[Any]], tensors: dict[str, np.ndarray]) -> Any:
    inputs, outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip(("image", "y"), shapes)
    )
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "g", [inputs], [outputs], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def classifier(
    batch: int | str = "n",
    size: int | str = 8,
    *,
    extra: Any = None,
    channels_last: bool = False,
    more: dict[str, np.ndarray] | None = None,
) -> Any:
    first = [helper.make_node("Transpose", ["image"], ["x0"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes = [
        *first,
        helper.make_node("Conv", ["x0" if channels_last else "image", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        *([extra] if extra is not None else []),
        helper.make_node("GlobalAveragePool", ["e" if extra is not None else "r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "h"], ["y"]),
    ]
    shape = [batch, size, size, 3] if channels_last else [batch, 3, size, size]
    return _model(nodes, (shape, [batch, 5]), {"w": WEIGHT, "h": HEAD, **(more or {})})


def segmenter(halving: bool = False, size: int | str = "s") -> Any:
    """One convolution, or one behind a pool that halves and a transposed convolution that doubles."""
    if not halving:
        nodes = [helper.make_node("Conv", ["image", "m"], ["y"], pads=[1] * 4)]
        return _model(nodes, (["n", 3, size, size], ["n", 2, size, size]), {"m": MASK})
    nodes = [
        helper.make_node("MaxPool", ["image"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "m"], ["c"], pads=[1] * 4),
        helper.make_node("ConvTranspose", ["c", "u"], ["y"], strides=[2, 2]),
    ]
    up = RNG.normal(size=(2, 2, 2, 2)).astype(np.float32)
    return _model(nodes, (["n", 3, size, size], ["n", 2, "oh", "ow"]), {"m": MASK, "u": up})


def blur() -> Any:
    nodes = [helper.make_node("Conv", ["image", "k"], ["y"], pads=[1] * 4)]
    return _model(nodes, (["n", 1, "h", "w"], ["n", 1, "h", "w"]), {"k": GREY})


def saved(path: Path, model: Any, **options: Any) -> Path:
    onnx.save(model, str(path), **options)
    return path


def runtime(path: Path) -> Callable[[Tensor], Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0])


def test_classifier_scores_are_onnxruntime_s(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", classifier())
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    stated = ";".join(",".join(map(str, values)) for values in (mean, std))
    x = torch.rand(7, 3, 8, 8)
    normalised = (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    for spec in (f"onnx:{path}", str(path)):
        model = load_classifier(spec, normalise=stated)
        assert model.num_classes == 5 and model.input_shape == (3, 8, 8) and not model.warnings
        assert model.identity_complete and model.libraries == ("onnxruntime",)
        torch.testing.assert_close(model(x), runtime(path)(normalised), rtol=0, atol=1e-5)
    plain = load_classifier(f"onnx:{path}")
    assert "normalise" in plain.warnings[0]
    torch.testing.assert_close(plain(x), runtime(path)(x), rtol=0, atol=1e-5)
    refuse_what_is_no_function(plain)


def test_a_fixed_batch_is_filled_up_and_cut(tmp_path: Path) -> None:
    fixed = load_classifier(f"onnx:{saved(tmp_path / 'fixed.onnx', classifier(batch=4))}")
    free = load_classifier(f"onnx:{saved(tmp_path / 'free.onnx', classifier())}")
    for count in (1, 3, 4, 9):
        x = torch.rand(count, 3, 8, 8)
        torch.testing.assert_close(fixed(x), free(x), rtol=0, atol=1e-6)


def test_channels_last_as_tensorflow_writes_them(tmp_path: Path) -> None:
    last = load_classifier(f"onnx:{saved(tmp_path / 'last.onnx', classifier(channels_last=True))}")
    first = load_classifier(f"onnx:{saved(tmp_path / 'first.onnx', classifier())}")
    x = torch.rand(3, 3, 8, 8)
    assert last.input_shape == (3, 8, 8)
    torch.testing.assert_close(last(x), first(x), rtol=0, atol=1e-6)


def test_an_open_size_is_asked_for_and_a_fixed_one_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "open.onnx", classifier(size="s"))
    with pytest.raises(InputError, match="--size 224x224"):
        load_classifier(f"onnx:{path}")
    assert load_classifier(f"onnx:{path}", size=(16, 12)).input_shape == (3, 16, 12)
    with pytest.raises(InputError, match="takes images of 8x8"):
        load_classifier(f"onnx:{saved(tmp_path / 'fixed.onnx', classifier())}", size=(16, 16))


def test_identity_is_the_file_s_with_its_weights_beside_it(tmp_path: Path) -> None:
    one = load_classifier(f"onnx:{saved(tmp_path / 'a.onnx', classifier())}")
    again = load_classifier(f"onnx:{saved(tmp_path / 'b.onnx', classifier())}")
    assert one.identity == again.identity
    assert load_classifier(f"onnx:{tmp_path / 'a.onnx'}", normalise="none").identity == one.identity
    assert load_classifier(f"onnx:{tmp_path / 'a.onnx'}", normalise="0.5;0.5").identity != one.identity
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    path = saved(tmp_path / "split.onnx", classifier(), **options)
    split = load_classifier(f"onnx:{path}")
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(split(x), one(x), rtol=0, atol=0)
    raw = bytearray((tmp_path / "w.bin").read_bytes())
    raw[3] ^= 1  # the sign, or so, of one weight
    (tmp_path / "w.bin").write_bytes(raw)
    assert load_classifier(f"onnx:{path}").identity != split.identity
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"'w\.bin', which is not beside it"):
        load_classifier(f"onnx:{path}")


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    path = saved(tmp_path / "inner" / "m.onnx", classifier(), **options)
    (tmp_path / "inner" / "w.bin").rename(tmp_path / "w.bin")
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its own folder"):
        load_classifier(f"onnx:{path}")


@pytest.mark.parametrize(
    ("node", "word"),
    [
        (helper.make_node("RandomNormalLike", ["r"], ["e"]), "RandomNormalLike"),
        (helper.make_node("DynamicQuantizeLinear", ["r"], ["q", "s", "z"]), "quantised dynamically"),
    ],
)
def test_what_is_no_function_of_one_input_is_refused(tmp_path: Path, node: Any, word: str) -> None:
    if node.op_type == "DynamicQuantizeLinear":
        model = classifier()
        model.graph.node.append(node)
    else:
        model = classifier(extra=node)
    with pytest.raises(ModelError, match=word):
        load_classifier(f"onnx:{saved(tmp_path / 'm.onnx', model)}")


def test_what_is_random_inside_a_branch_is_refused(tmp_path: Path) -> None:
    draws = helper.make_graph(
        [helper.make_node("RandomNormalLike", ["r"], ["e1"])],
        "then",
        [],
        [helper.make_tensor_value_info("e1", TensorProto.FLOAT, None)],
    )
    keeps = helper.make_graph(
        [helper.make_node("Identity", ["r"], ["e2"])],
        "else",
        [],
        [helper.make_tensor_value_info("e2", TensorProto.FLOAT, None)],
    )
    branch = helper.make_node("If", ["flag"], ["e"], then_branch=draws, else_branch=keeps)
    model = classifier(extra=branch, more={"flag": np.array(False)})
    with pytest.raises(ModelError, match="RandomNormalLike"):
        load_classifier(f"onnx:{saved(tmp_path / 'm.onnx', model)}")


def test_segmenter_scores_and_the_multiple_it_needs(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", segmenter())
    with pytest.raises(InputError, match="output is missing"):
        load_segmenter(f"onnx:{path}")
    model = load_segmenter(f"onnx:{path}", output="logits", normalise="0.5;0.25")
    assert (model.num_classes, model.in_channels, model.multiple_of) == (2, 3, 1) and model.identity_complete
    x = torch.rand(2, 3, 11, 9)
    torch.testing.assert_close(model(x), runtime(path)((x - 0.5) / 0.25), rtol=0, atol=1e-5)
    halves = load_segmenter(f"onnx:{saved(tmp_path / 'h.onnx', segmenter(halving=True))}", output="logits")
    assert halves.multiple_of == 2 and halves(x).shape == (2, 2, 11, 9)


def test_segmenter_of_one_size_says_so(tmp_path: Path) -> None:
    model = load_segmenter(f"onnx:{saved(tmp_path / 'm.onnx', segmenter(size=16))}", output="logits")
    assert model(torch.rand(1, 3, 16, 16)).shape == (1, 2, 16, 16)
    with pytest.raises(ModelError, match="give --size"):
        model(torch.rand(1, 3, 20, 16))


def test_denoiser_answers_and_identity(tmp_path: Path) -> None:
    path = saved(tmp_path / "blur.onnx", blur())
    denoiser = load_denoiser(f"onnx:{path}")
    x = torch.rand(3, 1, 10, 12) * 1.4 - 0.2
    torch.testing.assert_close(denoiser.at(0.1)(x), runtime(path)(x).clamp(0, 1), rtol=0, atol=1e-6)
    assert denoiser.identity == load_denoiser(str(path)).identity and denoiser.identity_complete
    assert denoiser.at(0.1).identity != denoiser.at(0.2).identity
    assert "sigma" in denoiser.notes[0]
    with pytest.raises(ModelError, match="takes images of 1xanyxany"):
        denoiser.at(0.1)(torch.rand(1, 3, 10, 12))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x02junk" * 50])
def test_files_that_are_no_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        load_classifier(f"onnx:{tmp_path / 'm.onnx'}")
    with pytest.raises(InputError, match="there is no ONNX file"):
        load_classifier("onnx:nowhere.onnx")
