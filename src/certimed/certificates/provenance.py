"""What ran: recorded on every certificate, because what is certified is the model that ran, where it ran."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
        versions: versions of certimed and the libraries below it.
    """

    device: str
    device_name: str
    dtype: str
    model: str | None
    intensity: str | None
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Provenance:
        """Inverse of :meth:`to_dict`; raises InputError on missing or unknown keys."""
        try:
            return cls(**data)
        except TypeError as error:
            raise InputError(f"the certificate's provenance does not have the documented fields: {error}") from error


def collect_provenance(
    device: str, *, dtype: str = "float32", model: str | None = None, intensity: str | None = None
) -> Provenance:
    """Record this process: library versions and the name of the device."""
    return Provenance(device, _device_name(device), dtype, model, intensity, dict(_versions()))


@lru_cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for name in _RECORDED:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "unknown"))
    return tuple(found)


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
