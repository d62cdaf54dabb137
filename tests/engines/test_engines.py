"""A model in another engine: the same answers, whatever the batch; named, checked and refused by sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certimed.classification import SmoothedClassifier
from certimed.engine import Acceleration, ModelStream, arithmetic
from certimed.engine.contract import check_one_answer
from certimed.engines import EXPORTING, Exported, exported, start
from certimed.errors import InputError, ModelError
from certimed.models.identity import identity_of
from certimed.models.onnx_network import OnnxNetwork

SHAPE = (3, 12, 12)


class Net(nn.Module):
    """Convolution, normalisation, attention, resampling; looks at the size of its input as adapters do."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise ModelError("three channels are needed")
        small = nn.functional.interpolate(self.norm(self.conv(x)), scale_factor=0.5, mode="nearest")
        hidden = small.flatten(2).transpose(1, 2)
        mixed, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        return self.head(mixed.mean(dim=1))


def images(count: int, seed: int = 1, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=EXPORTING)
def engine(request: pytest.FixtureRequest) -> str:
    for library in (request.param, "onnxscript"):
        pytest.importorskip(library)
    return request.param


@pytest.fixture(scope="module")
def ran(engine: str) -> Exported:
    return start(engine, Net(), "float32")


@torch.no_grad()
def test_answers_are_those_of_pytorch_in_batches_of_every_size(ran: Exported) -> None:
    net = Net()
    for count in (1, 2, 5, 6, 16, 17, 40):
        x = images(count, count)
        before = x.clone()
        torch.testing.assert_close(ran(x), net(x), rtol=1e-4, atol=1e-5)
        assert torch.equal(x, before)


@torch.no_grad()
def test_an_answer_is_of_its_own_memory_and_of_its_own_row(ran: Exported) -> None:
    first = ran(images(16))
    kept = first.clone()
    ran(images(16, seed=9))
    assert torch.equal(first, kept)
    seen = check_one_answer(ran, images(8), 50 * images(8, seed=2), largest=32)
    assert seen.near_ties == 0


def test_gradients_are_those_of_the_model_and_scores_those_of_the_engine(ran: Exported) -> None:
    x = images(3).requires_grad_()
    (wanted,) = torch.autograd.grad(Net()(x)[:, 1].sum(), x)
    scores = ran(x)
    (found,) = torch.autograd.grad(scores[:, 1].sum(), x)
    torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        torch.testing.assert_close(scores.detach(), ran(x), rtol=1e-6, atol=1e-6)


def test_identity_and_provenance_name_engine_and_precision(engine: str) -> None:
    net = Net()
    own = identity_of(net)
    stream = ModelStream(net, identity=own, acceleration=Acceleration(engine=engine))
    assert stream.identity not in (None, own)
    assert stream.arithmetic == f"float32 in {engine}" == arithmetic(net, Acceleration(engine=engine))
    assert engine in stream.libraries
    assert ModelStream(net, identity=own).identity == own
    smoothed = SmoothedClassifier(Acceleration(engine=engine).wrap(net), 5, 0.25)
    certificate = smoothed.certify(images(1)[0], n0=5, n=20, item_id="a")
    assert certificate.provenance.dtype == f"float32 in {engine}"
    plain = SmoothedClassifier(net, 5, 0.25).certify(images(1)[0], n0=5, n=20, item_id="a")
    assert (certificate.prediction, certificate.counts) == (plain.prediction, plain.counts)


@torch.no_grad()
def test_a_model_whose_batch_is_fixed_in_its_code_is_exported_for_it(engine: str) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = int(x.shape[0])
            return torch.stack([x[row].flatten()[:4] * 2 for row in range(rows)])

    x = images(21)
    assert torch.equal(start(engine, Fixed().eval(), "float32")(x), x.flatten(1)[:, :4] * 2)


def test_what_cannot_be_exported_or_answers_otherwise_is_refused_in_a_sentence(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] if float(x.sum()) > 0 else x.flatten(1)[:, 2:4]

    with pytest.raises(InputError, match=rf"cannot be exported for engine {engine} at 3x12x12 \(.*use --engine torch"):
        start(engine, Branching().eval(), "float32")(images(2))
    with pytest.raises(InputError, match="runs modules of PyTorch"):
        Acceleration(engine=engine).wrap(lambda x: x)
    with pytest.raises(InputError, match="channels_last is PyTorch's"):
        Acceleration(engine=engine, channels_last=True)
    monkeypatch.setitem(exported.TOLERANCE, "float32", 0.0)
    with pytest.raises(ModelError, match="answers otherwise than PyTorch"):
        start(engine, Net(3), "float32")(images(2) * 7)


def test_precisions_are_refused_where_engine_or_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match="onnxruntime computes in float32, not in bfloat16"):
        Acceleration("bfloat16", engine="onnxruntime").wrap(Net())
    with pytest.raises(InputError, match="engine='tensorrt' is unknown"):
        Acceleration(engine="tensorrt")
    with pytest.raises(InputError, match="runs on the CPU; use --device cpu"):
        Acceleration(engine="onnxruntime").check_device("cuda")
    pytest.importorskip("openvino")
    from certimed.engines import openvino_engine

    class Core:
        @staticmethod
        def get_property(device: str, name: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(openvino_engine, "_core", Core)
    with pytest.raises(InputError, match="no bfloat16 instructions; use --precision float32"):
        start("openvino", Net(), "bfloat16")


@torch.no_grad()
def test_onnx_files_run_in_every_engine(engine: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = np.arange(12, dtype=np.float32).reshape(3, 4) / 12
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        onnx.helper.make_node("Flatten", ["pooled"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["scores"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info("x", kind, ["n", 3, 12, 12])],
        [onnx.helper.make_tensor_value_info("scores", kind, ["n", 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    file = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), file)
    network = OnnxNetwork(file, 2)
    pair = nn.Sequential(nn.AvgPool2d(1), network).eval()
    ran = start(engine, pair, "float32")
    for count in (1, 7, 20):
        torch.testing.assert_close(ran(images(count)), pair(images(count)), rtol=1e-5, atol=1e-6)
    assert ran.arithmetic == f"float32 in {engine}, PyTorch around the ONNX file"
    assert network.arithmetic == "onnxruntime on the CPU"
