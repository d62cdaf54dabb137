"""The noise schedule of a diffusion model, and the one place where a noise level becomes a timestep.

A variance-preserving diffusion model (Ho et al., NeurIPS 2020) sees ``x_t = sqrt(abar_t) y + sqrt(1 - abar_t) e`` with
``y`` in [-1, 1]. Randomized smoothing adds noise of standard deviation ``sigma`` to ``x`` in [0, 1]. With
``y = 2 x - 1`` the same noise has standard deviation ``sigma' = 2 sigma``, and ``sqrt(abar_t) (y + sigma' e)`` is
distributed as ``x_t`` exactly when ``abar_t = 1 / (1 + sigma'^2)`` (Carlini et al., ICLR 2023, "(Certified!!)
adversarial robustness for free!", Section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certimed.errors import InputError, require

MODEL_RANGE_WIDTH = 2.0
"""Width of the diffusion model's range [-1, 1]; images in [0, 1] have width 1, so noise is doubled on the way in."""

_VARIANCE_PRESERVING = {
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
}
SCHEDULE_KEYS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)
"""What of a scheduler's configuration decides the noise levels."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The cumulative products ``abar_t`` of a variance-preserving diffusion model, float64 ``(T,)``, strictly falling.

    Raises:
        InputError: the values are not in (0, 1], not finite, or not strictly decreasing.
    """

    alphas_cumprod: NDArray[np.float64]

    def __post_init__(self) -> None:
        values = np.array(self.alphas_cumprod, dtype=np.float64)
        if values.ndim != 1 or values.size == 0 or not np.all(np.isfinite(values)):
            raise InputError(f"alphas_cumprod must be a list of finite numbers, got shape {values.shape}")
        if values[0] > 1 or values[-1] < 0 or np.any(np.diff(values) >= 0):
            raise InputError(
                "alphas_cumprod must lie in [0, 1] and fall strictly with the timestep; check the schedule"
            )
        values.setflags(write=False)
        object.__setattr__(self, "alphas_cumprod", values)

    @classmethod
    def linear(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2) -> NoiseSchedule:
        """The linear schedule of Ho et al. (2020), also that of the guided-diffusion checkpoints."""
        betas = np.linspace(beta_start, beta_end, steps, dtype=np.float64)
        return cls(np.asarray(np.cumprod(1.0 - betas), dtype=np.float64))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """The schedule a diffusers ``scheduler_config.json`` describes.

        Raises:
            InputError: the scheduler is not of the variance-preserving family (flow matching, EDM, score SDE).
        """
        name = str(config.get("_class_name", "DDPMScheduler"))
        if name not in _VARIANCE_PRESERVING:
            raise InputError(
                f"scheduler {name!r} is not a variance-preserving diffusion schedule, so no timestep matches a noise "
                f"level; use a model saved with one of {', '.join(sorted(_VARIANCE_PRESERVING))}"
            )
        kept = {key: config[key] for key in SCHEDULE_KEYS if config.get(key) is not None}
        scheduler = require("diffusers", "denoise").DDPMScheduler(**kept)
        return cls(scheduler.alphas_cumprod.double().numpy())

    def __len__(self) -> int:
        return int(self.alphas_cumprod.size)

    def __repr__(self) -> str:
        return f"NoiseSchedule(steps={len(self)}, sigma=[{self.sigma(0):.4g}, {self.sigma(len(self) - 1):.4g}])"

    def abar(self, timestep: int) -> float:
        """``abar_t``: the share of the signal's variance left at ``timestep``."""
        return float(self.alphas_cumprod[timestep])

    def sigma(self, timestep: int) -> float:
        """Standard deviation of the noise at ``timestep``, in [0, 1] image units; infinite where nothing is left."""
        abar = self.abar(timestep)
        return float(np.sqrt((1 - abar) / abar) / MODEL_RANGE_WIDTH) if abar > 0 else float("inf")

    def timestep_for_sigma(self, sigma: float) -> int:
        """See :func:`timestep_for_sigma`."""
        return timestep_for_sigma(sigma, self.alphas_cumprod)


def timestep_for_sigma(sigma: float, alphas_cumprod: ArrayLike) -> int:
    """The timestep whose noise level is nearest to ``sigma``.

    Nearest means: smallest ``|abar_t - 1 / (1 + (2 sigma)^2)|``; of two equally near the smaller t. For the linear
    schedule 1e-4..2e-2 of 1000 steps, sigma .125 / .25 / .5 / 1 give t = 73 / 144 / 258 / 396.

    Args:
        sigma: standard deviation of the noise, in [0, 1] image units (the model's own range [-1, 1] doubles it here,
            and nowhere else).
        alphas_cumprod: ``(T,)``, strictly decreasing.

    Raises:
        InputError: sigma is not a positive number, or lies beyond the last timestep of the schedule.
    """
    abar = np.asarray(alphas_cumprod, dtype=np.float64)
    if not np.isfinite(sigma) or sigma <= 0:
        raise InputError(f"sigma must be a positive number in [0, 1] image units, got {sigma!r}")
    wanted = 1.0 / (1.0 + (MODEL_RANGE_WIDTH * sigma) ** 2)
    if wanted < abar[-1]:
        largest = np.sqrt((1 - abar[-1]) / abar[-1]) / MODEL_RANGE_WIDTH
        raise InputError(f"sigma={sigma:g} is beyond this diffusion model's schedule; use sigma <= {largest:.4g}")
    return int(np.argmin(np.abs(abar - wanted)))
