"""What ran: recorded on every certificate, because what is certified is the model that ran, where it ran."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from certimed.certificates.fields import Fields
from certimed.errors import InputError

_RECORDED = ("certimed", "torch", "numpy", "scipy")


@dataclass(frozen=True)
class Provenance:
    """Device, precision and versions of a computation.

    Attributes:
        device: e.g. ``"cpu"`` or ``"cuda:0"``; noise streams differ between kinds of device.
        device_name: the processor or GPU model.
        dtype: arithmetic of the model's forward pass, e.g. ``"float32"``.
        model: identity of the model (a hash), or None where the caller gave none.
        intensity: how the file's intensities became [0, 1], or None for an image passed as an array.
        pixels: hex SHA-256 of the certified input (shape and float32 values): a redraw whose input has another digest
            reads or prepares the image differently, and its counts say nothing about the record.
        decoders: what read the file, and what decoded it, with their versions; empty for an array.
        versions: versions of certimed, the libraries below it, and those that built the model.
    """

    device: str
    device_name: str
    dtype: str
    model: str | None
    intensity: str | None
    pixels: str | None
    decoders: dict[str, str]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Provenance:
        """Inverse of :meth:`to_dict`; raises InputError on missing, unknown or wrongly typed fields."""
        read = Fields(data, "provenance of the certificate")
        if unknown := data.keys() - {field.name for field in fields(cls)}:
            raise InputError(f"the provenance of the certificate has unknown fields: {', '.join(sorted(unknown))}")
        return cls(
            device=read.string("device"),
            device_name=read.string("device_name"),
            dtype=read.string("dtype"),
            model=read.optional_string("model"),
            intensity=read.optional_string("intensity"),
            pixels=read.optional_string("pixels"),
            decoders=read.strings("decoders"),
            versions=read.strings("versions"),
        )


def collect_provenance(
    device: str,
    *,
    dtype: str = "float32",
    model: str | None = None,
    intensity: str | None = None,
    pixels: str | None = None,
    decoders: Mapping[str, str] | None = None,
    libraries: Sequence[str] = (),
) -> Provenance:
    """Record this process: library versions and the name of the device.

    Args:
        libraries: distributions that built the model, beside those that are always recorded.
    """
    versions = {"python": platform.python_version(), **{name: _version(name) for name in (*_RECORDED, *libraries)}}
    return Provenance(device, _device_name(device), dtype, model, intensity, pixels, dict(decoders or {}), versions)


@lru_cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


@lru_cache
def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
