"""A model that PyTorch exports and another engine runs: one protocol, whatever the engine.

The graph is exported for each size of image on its first batch, then compiled for fixed numbers of rows: engines choose
their kernels by shape. Every call is cut into such graphs, the last filled up with copies of a row. Rows do not see
each other, which the engine of the run checks on the answers, as of every model.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from certimed.errors import InputError, ModelError
from certimed.models.onnx_network import OnnxNetwork
from certimed.models.sources import brief

ROWS = (16, 2)
"""Rows of the graphs: of one for batches and one for the few copies that checks look at, largest first.

With 56 rows a ViT-B/32, a small CLIP, a U-Net and a denoiser before it were no faster a row than with 16.
"""

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""By what share of the spread of a model's scores an engine may answer otherwise than PyTorch in float32."""

_SHAPES_KEPT = 4
_PROBES = 2
_UNBOUNDED = 1 << 20

Compiled = Callable[[Tensor], Tensor]
"""float32 ``(rows, C, *space)`` in memory of its own -> scores in memory of their own."""


@dataclass(frozen=True)
class Program:
    """A model as PyTorch exports it.

    Attributes:
        graph: the exported program.
        least, most: numbers of rows that it takes.
    """

    graph: Any
    least: int
    most: int

    def takes(self, rows: int) -> bool:
        """Whether the graph holds for so many rows."""
        return self.least <= rows <= self.most


@dataclass
class _Graphs:
    """What runs images of one shape: the converted program, and what is compiled of it by its number of rows."""

    program: Program
    made: Any
    compiled: dict[int, Compiled] = field(default_factory=dict)


class Exported(nn.Module, ABC):
    """A model in another engine: float32 ``(B, C, *space)`` -> float32 scores, as the model's.

    What the engine answers is compared with PyTorch on the first copies of each shape of images, and refused where it
    differs by more than :data:`TOLERANCE`. Where a gradient is asked for, scores are the engine's and the gradient is
    that of the PyTorch model.

    Args:
        model: in evaluation mode, on the CPU. ONNX files in it are given to the engine as they are.
        precision: one of :attr:`precisions`.

    Attributes:
        name: of the engine.
        precisions: that the engine computes in.
        libraries: distributions whose versions decide what ran.
        model, precision: as given.
        arithmetic: for provenance.
        dtype: the coarsest floating point type that is computed in.

    Raises:
        InputError: the engine, or this processor, does not compute in this precision.
        MissingExtraError: the engine is not installed.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    libraries: ClassVar[tuple[str, ...]]

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.training = False  # not eval(), which would reach into the model
        if precision not in self.precisions:
            raise InputError(
                f"engine {self.name} computes in {', '.join(self.precisions)}, not in {precision}; choose one of them, "
                "or another engine"
            )
        self.precision, self.arithmetic = precision, f"{precision} in {self.name}"
        self.dtype = torch.bfloat16 if precision != "float32" else torch.float32
        self._check_processor()
        self.model = model
        files = any(isinstance(part, OnnxNetwork) for part in model.modules())
        self._glue = _with_files(model, self._file, self.arithmetic) if files else None
        self.arithmetic += ", PyTorch around the ONNX file" * files
        self._graphs: OrderedDict[tuple[int, ...], Compiled] = OrderedDict()

    @abstractmethod
    def _check_processor(self) -> None:
        """Refuse, with InputError, what this processor cannot do."""

    @abstractmethod
    def _convert(self, program: Program, shape: tuple[int, ...]) -> Any:
        """The program as the engine holds it; raises whatever the engine does."""

    @abstractmethod
    def _compile(self, made: Any, rows: int, shape: tuple[int, ...]) -> Compiled:
        """What was converted, for a number of rows of images of one shape; raises whatever the engine does."""

    @abstractmethod
    def _file(self, network: OnnxNetwork) -> Callable[[Any], Any]:
        """The graph of an ONNX file in this engine: arrays of one batch -> its answer, as an array."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            InputError: the model cannot be exported. ModelError: the engine fails, or answers otherwise than PyTorch.
        """
        if torch.is_grad_enabled() and x.requires_grad:
            exact = self.model(x)
            return exact + (self._answers(x.detach()) - exact).detach()  # type: ignore[no-any-return]
        return self._answers(x)

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        return self.arithmetic

    def _answers(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            raise InputError(f"engine {self.name} runs on the CPU and the images are on {x.device}; use --device cpu")
        shape = tuple(x.shape[1:])
        if shape in self._graphs:
            self._graphs.move_to_end(shape)
            return self._graphs[shape](x)
        run = self._glue or partial(self._in_pieces, self._exported(shape, ROWS[0]), shape)
        self._compare(x[:_PROBES], run(x[:_PROBES]))
        self._graphs[shape] = run
        while len(self._graphs) > _SHAPES_KEPT:
            self._graphs.popitem(last=False)
        return run(x)

    def _in_pieces(self, graphs: _Graphs, shape: tuple[int, ...], x: Tensor) -> Tensor:
        found, begin = [], 0
        while begin < len(x):
            rows = _rows(len(x) - begin)
            if rows not in graphs.compiled:
                graphs.compiled[rows] = self._graph(graphs, rows, shape)
            piece = x[begin : begin + rows]
            missing = rows - len(piece)
            filled = torch.cat([piece, piece[-1:].expand(missing, *shape)]) if missing else piece.contiguous()
            found.append(graphs.compiled[rows](filled)[: len(piece)])
            begin += rows
        return torch.cat(found) if len(found) > 1 else found[0]

    def _exported(self, shape: tuple[int, ...], rows: int) -> _Graphs:
        try:
            program = export(self.model, shape, rows)
            return _Graphs(program, self._convert(program, shape))
        except (InputError, ModelError):
            raise
        # Exporters and converters fail in ways of their own, each with errors of its own.
        except Exception as error:
            raise InputError(
                f"the model cannot be exported for engine {self.name} at {'x'.join(map(str, shape))} "
                f"({type(error).__name__}: {brief(error)}); use --engine torch"
            ) from error

    def _graph(self, graphs: _Graphs, rows: int, shape: tuple[int, ...]) -> Compiled:
        made = graphs.made if graphs.program.takes(rows) else self._exported(shape, rows).made
        try:
            return self._compile(made, rows, shape)
        except Exception as error:  # of the engine's own
            raise InputError(
                f"engine {self.name} cannot compile the model ({type(error).__name__}: {brief(error)}); use --engine "
                "torch"
            ) from error

    def _compare(self, x: Tensor, found: Tensor) -> None:
        with torch.no_grad():
            wanted = self.model(x)
        if found.shape != wanted.shape or not bool(torch.isfinite(found).all()):
            raise ModelError(f"engine {self.name} answers {tuple(found.shape)} or no numbers; use --engine torch")
        share = TOLERANCE.get(self.precision)
        spread, difference = float(wanted.max() - wanted.min()), float((found - wanted).abs().max())
        if share is not None and difference > share * spread:
            raise ModelError(
                f"engine {self.name} in {self.precision} answers otherwise than PyTorch, by {difference:.3g} where the "
                f"scores spread over {spread:.3g}; use --engine torch, or --precision float32"
            )


def _rows(left: int) -> int:
    """Rows of the next graph, where so many are left: what is left over runs where fewer rows are filled up."""
    large, small = ROWS
    return large if left > large // 3 else small


def export(model: nn.Module, shape: tuple[int, ...], rows: int) -> Program:
    """A model as a graph, by :func:`torch.export.export`, for any number of rows where that is possible.

    Where the model's code looks at the number of rows, the graph holds for the range of numbers that take the same way
    through it; where it was fixed to the number it was exported with, for that one alone.
    """
    sample = torch.zeros(rows, *shape)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = torch.export.export(model, (sample,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        except Exception:
            return Program(torch.export.export(model, (sample,)), rows, rows)
    (entry,) = [node for node in graph.graph.nodes if node.op == "placeholder" and node.name == graph_input(graph)]
    length = entry.meta["val"].shape[0]
    if isinstance(length, int) or length.node.expr.is_number:
        return Program(graph, rows, rows)
    bounds = graph.range_constraints.get(length.node.expr)
    if bounds is None:
        return Program(graph, 2, _UNBOUNDED)
    return Program(graph, int(max(bounds.lower, 2)), int(min(bounds.upper, _UNBOUNDED)))


def graph_input(graph: Any) -> str:
    """Name of the one input of an exported program."""
    (name,) = graph.graph_signature.user_inputs
    return str(name)


def _with_files(module: nn.Module, run: Callable[[OnnxNetwork], Callable[[Any], Any]], how: str) -> nn.Module:
    """The module with its ONNX files run by an engine; all else, weights too, is shared with it."""
    if isinstance(module, OnnxNetwork):
        return module.run_by(run(module), how)
    other = copy.copy(module)
    parts = module._modules.items()
    other._modules = {name: None if part is None else _with_files(part, run, how) for name, part in parts}
    return other
