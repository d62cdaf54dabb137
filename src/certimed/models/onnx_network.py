"""ONNX files as networks: any framework's model through onnxruntime on the CPU, with no code of anyone's run.

An ONNX file is a graph of operators with weights. Operators that onnxruntime does not bring itself are refused by it,
as no library of custom operators is ever registered; operators that make the graph no function of one input are refused
here. The file's digest, and that of the files of weights beside it, is all that identifies the model.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certimed.errors import InputError, ModelError, require
from certimed.models.sources import brief

LIBRARIES = ("onnxruntime",)

_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_CHUNK = 1 << 22  # bytes
_COLOURS = (1, 3)


class OnnxNetwork(nn.Module):
    """The graph of an ONNX file as a module: float32 ``(B, C, *space)`` -> float32 ``(B, K)`` or ``(B, K, *space)``.

    Graphs with a fixed batch size are run in batches of that size, the last filled up with copies. Graphs whose images
    have their channels last, as TensorFlow's do, are given them so, and what they answer is turned back. Everything is
    computed in the graph's own precision on the CPU, whatever the device of the input.

    Args:
        path: the file; weights it keeps in other files lie beside it.
        outputs: number of axes of the answer, by which one of several outputs is chosen: 2 for scores, 4 for masks.

    Attributes:
        digest: hex SHA-256 of the file and of the files of weights it names.
        channels: C, or None where the file leaves it open.
        space: ``(H, W)``, an open axis None.
        arithmetic: for provenance.

    Raises:
        InputError: there is no such file, or it has not one image as input, or not one answer.
        ModelError: it is no ONNX file, misses files, or is no fixed function of one input.
        MissingExtraError: onnx or onnxruntime is not installed.
    """

    arithmetic = "onnxruntime on the CPU"

    def __init__(self, path: str | Path, outputs: int) -> None:
        super().__init__()
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise InputError(f"there is no ONNX file {self.path}; check the path")
        self.digest = _checked(self.path)
        try:
            self._session = onnx_session(str(self.path))
        # onnxruntime's errors share no class of its own.
        except Exception as error:
            raise ModelError(f"onnxruntime cannot load {self.path} ({type(error).__name__}: {brief(error)})") from error
        inputs, found = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _KINDS:
            said = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise InputError(
                f"{self.path} takes {said}; one float input of images (batch, channels, height, width) is needed"
            )
        fitting = [one for one in found if one.type in _KINDS and len(one.shape or ()) == outputs]
        if len(fitting) != 1:
            said = ", ".join(f"{one.name} {one.type} {one.shape}" for one in found)
            raise InputError(
                f"{self.path} answers {said}; exactly one float output of {outputs} axes is needed: export the model "
                "with one answer"
            )
        shape = [axis if isinstance(axis, int) and axis > 0 else None for axis in inputs[0].shape]
        self._channels_last = shape[1] not in _COLOURS and shape[3] in _COLOURS
        self._batch = shape[0]
        self.channels, *space = [shape[3], shape[1], shape[2]] if self._channels_last else shape[1:]
        self.space = (space[0], space[1])
        self._names, self._kind = (inputs[0].name, fitting[0].name), _KINDS[inputs[0].type]
        self._answers: Callable[[Any], Any] | None = None
        self.eval()

    @property
    def answer(self) -> str:
        """Name of the output that is the answer."""
        return str(self._names[1])

    def session_run(self, values: Any) -> Any:
        """The answer to one batch of arrays, by onnxruntime."""
        return self._session.run([self._names[1]], {self._names[0]: values})[0]

    def run_by(self, run: Callable[[Any], Any], how: str) -> OnnxNetwork:
        """The same file, run by another engine.

        Args:
            run: one batch of arrays, in memory of their own -> the answer.
            how: what :attr:`arithmetic` says of it.
        """
        other = copy.copy(self)
        other._answers, other.arithmetic = run, how
        return other

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            ModelError: images of another size than the file takes, or onnxruntime fails.
        """
        wrong = [want for want, got in zip((self.channels, *self.space), x.shape[1:]) if want not in (None, got)]
        if wrong:
            wanted = "x".join(str(axis or "any") for axis in (self.channels, *self.space))
            raise ModelError(
                f"{self.path.name} takes images of {wanted} (channels, height, width) and got "
                f"{'x'.join(map(str, x.shape[1:]))}; give --size HEIGHTxWIDTH, or export it with dynamic axes"
            )
        values = x.detach().to("cpu", torch.float32).numpy().astype(self._kind)
        values = np.moveaxis(values, 1, -1) if self._channels_last else values
        step = self._batch or max(1, len(values))
        parts = [self._run(values[start : start + step], step) for start in range(0, len(values), step)]
        answer = np.concatenate(parts).astype(np.float32)
        answer = np.moveaxis(answer, -1, 1) if self._channels_last and answer.ndim > 2 else answer
        return torch.from_numpy(np.ascontiguousarray(answer)).to(x.device)

    def _run(self, values: Any, step: int) -> Any:
        given = len(values)
        if given < step and self._batch:
            values = np.concatenate([values, np.repeat(values[-1:], step - given, axis=0)])
        try:
            return (self._answers or self.session_run)(np.ascontiguousarray(values))[:given]
        # onnxruntime's errors share no class of its own.
        except Exception as error:
            raise ModelError(
                f"{self.path.name} fails on images of {'x'.join(map(str, values.shape))} ({brief(error)}); check their "
                "size (--size)"
            ) from error


def onnx_session(source: str | bytes) -> Any:
    """onnxruntime's session of a file or of a graph's bytes, on the CPU with PyTorch's number of threads."""
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _checked(path: Path) -> str:
    """Digest of the file and its weights, after a look at its operators."""
    library = require("onnx", "onnx")
    try:
        model = library.load(str(path), load_external_data=False)
    # protobuf's errors, and onnx's own.
    except Exception as error:
        raise ModelError(f"{path} is no ONNX file, or is damaged ({type(error).__name__}); export it again") from error
    outside: set[str] = set()
    for node, tensors in _walked(model):
        _refuse(node, path)
        for tensor in tensors:
            outside |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    outside |= {
        entry.value
        for tensor in _initialisers(model.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    digest = hashlib.sha256(_file_digest(path))
    for name in sorted(outside):
        beside = (path.parent / name).resolve()
        if not beside.is_relative_to(path.parent.resolve()):
            raise ModelError(f"{path} keeps weights in {name!r:.120}, outside its own folder; export it again")
        if not beside.is_file():
            raise ModelError(f"{path} keeps weights in {name!r:.120}, which is not beside it; copy that file too")
        digest.update(name.encode() + b"\0" + _file_digest(beside))
    return digest.hexdigest()


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _walked(model: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Every node of graph, subgraphs and functions, with the tensors among its attributes."""
    waiting = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            tensors = []
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
                inner = [graph for graph in (attribute.g, *attribute.graphs) if graph.node or graph.initializer]
                waiting += inner
                tensors += [tensor for graph in inner for tensor in _initialisers(graph)]
            yield node, tensors


def _initialisers(graph: Any) -> list[Any]:
    sparse = [part for one in graph.sparse_initializer for part in (one.values, one.indices)]
    return [*graph.initializer, *sparse]


def _refuse(node: Any, path: Path) -> None:
    settings = {attribute.name: attribute for attribute in node.attribute}
    training = "training_mode" in settings and settings["training_mode"].i
    if node.op_type in _RANDOM or training or (node.op_type == "Dropout" and len(node.input) > 2):
        raise ModelError(
            f"{path.name} is no fixed function of its input: {node.op_type} {node.name!r:.80} draws at random or is in "
            "training mode; export the model in evaluation mode"
        )
    if node.op_type.startswith("DynamicQuantize"):
        raise ModelError(
            f"{path.name} is quantised dynamically ({node.op_type} {node.name!r:.80}), with a scale that depends on "
            "the batch it is in; use static quantisation, or float weights"
        )
