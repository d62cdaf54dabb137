"""OpenVINO: Intel's runtime for CPUs, in float32 or, where the processor has it, bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from certimed.engines.exported import Compiled, Exported, Program
from certimed.errors import InputError, require
from certimed.models.onnx_network import OnnxNetwork

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVino(Exported):
    """See :class:`certimed.engines.Exported`."""

    name = "openvino"
    precisions = tuple(_HINTS)
    libraries = ("openvino",)

    def _check_processor(self) -> None:
        if self.precision == "bfloat16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InputError("this processor has no bfloat16 instructions; use --precision float32")

    def _convert(self, program: Program, shape: tuple[int, ...]) -> Any:
        return require("openvino", "openvino").convert_model(program.graph)

    def _compile(self, made: Any, rows: int, shape: tuple[int, ...]) -> Compiled:
        made = made.clone()
        made.reshape([rows, *shape])
        run = self._request(made)
        return lambda x: torch.from_numpy(run(x.numpy()))

    def _file(self, network: OnnxNetwork) -> Callable[[Any], Any]:
        return self._request(_core().read_model(str(network.path)), network.answer)

    def _request(self, made: Any, answer: str | int = 0) -> Callable[[Any], Any]:
        library = require("openvino", "openvino")
        compiled = _core().compile_model(made, "CPU", settings(_HINTS[self.precision]))
        request, output = compiled.create_infer_request(), compiled.output(answer)

        def run(values: Any) -> Any:
            # The answer is a copy: the engine writes the next one to the same place.
            request.infer({0: library.Tensor(values, shared_memory=True)}, share_outputs=True)
            return request.get_tensor(output).data.copy()

        return run


def settings(hint: str) -> dict[str, Any]:
    """Of a compiled graph: the precision asked for, PyTorch's number of threads, and no scale made from a batch.

    Threads are not tied to cores: a worker, or another program, may need the same ones.
    """
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }


@lru_cache(maxsize=1)
def _core() -> Any:
    return require("openvino", "openvino").Core()
