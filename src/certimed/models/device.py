"""Where a model runs."""

from __future__ import annotations

import torch

from certimed.errors import InputError
from certimed.models.sources import brief

AUTO = "auto"


def checked_device(device: str | torch.device) -> torch.device:
    """The device, of ``"auto"`` a GPU where there is one; InputError where PyTorch does not know it or does not see it
    here."""
    if device == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is not known to PyTorch; use 'auto', 'cpu', 'cuda' or 'cuda:0'") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r} needs a CUDA GPU and PyTorch sees none here; use device='cpu'")
    try:
        torch.zeros(1, device=place).item()
    # Each kind of device has errors of its own for what is not there; "meta" computes nothing at all.
    except Exception as error:
        raise InputError(f"device {device!r} cannot be computed on here ({brief(error)}); use device='auto'") from error
    return place
