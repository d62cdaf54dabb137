"""onnxruntime: the graph as ONNX, in float32 on the CPU."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import torch

from certimed.engines.exported import Compiled, Exported, Program
from certimed.errors import require
from certimed.models.onnx_network import OnnxNetwork, onnx_session


class OnnxRuntime(Exported):
    """See :class:`certimed.engines.Exported`."""

    name = "onnxruntime"
    precisions = ("float32",)
    libraries = ("onnxruntime", "onnxscript")

    def _check_processor(self) -> None:
        require("onnxruntime", "onnx")

    def _convert(self, program: Program, shape: tuple[int, ...]) -> Any:
        require("onnxscript", "onnx")
        file, silence = io.BytesIO(), io.StringIO()
        with redirect_stdout(silence), redirect_stderr(silence):
            made: Any = torch.onnx.export(program.graph, dynamo=True, verbose=False)
        made.save(file)
        return onnx_session(file.getvalue())

    def _compile(self, made: Any, rows: int, shape: tuple[int, ...]) -> Compiled:
        (given,), (answer, *_) = made.get_inputs(), made.get_outputs()
        return lambda x: torch.from_numpy(made.run([answer.name], {given.name: x.numpy()})[0])

    def _file(self, network: OnnxNetwork) -> Callable[[Any], Any]:
        return network.session_run
