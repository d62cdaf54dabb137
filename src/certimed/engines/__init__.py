"""Other engines than PyTorch for the forward pass, one file each.

An engine runs a model that PyTorch has exported as a graph, in its own kernels and precision. That is another program,
so another base classifier, and as legal a one: what is certified is what ran, and identity and provenance name it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from certimed.engines.exported import Exported

if TYPE_CHECKING:
    from torch import nn

_FILES = {"openvino": ("openvino_engine", "OpenVino"), "onnxruntime": ("onnxruntime_engine", "OnnxRuntime")}

EXPORTING = tuple(_FILES)
"""Engines that run an exported graph, on the CPU."""


def engine(name: str) -> type[Exported]:
    """The class of an engine; its libraries are imported when it is used."""
    file, kind = _FILES[name]
    found: type[Exported] = getattr(import_module(f"certimed.engines.{file}"), kind)
    return found


def start(name: str, model: nn.Module, precision: str) -> Exported:
    """A model in an engine; see :class:`Exported`.

    Raises:
        InputError: the processor does not compute in this precision, or the engine does not.
        MissingExtraError: the engine is not installed.
    """
    return engine(name)(model, precision)


__all__ = ["EXPORTING", "Exported", "engine", "start"]
