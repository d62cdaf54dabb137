"""The timestep of a noise level, against the oracles of the linear schedule and against diffusers' own schedules."""

from __future__ import annotations

import numpy as np
import pytest

from certimed.denoising import NoiseSchedule, timestep_for_sigma
from certimed.errors import InputError

LINEAR = NoiseSchedule.linear()


@pytest.mark.parametrize(("sigma", "timestep"), [(0.125, 73), (0.25, 144), (0.5, 258), (1.0, 396)])
def test_timestep_of_the_linear_schedule(sigma: float, timestep: int) -> None:
    assert LINEAR.timestep_for_sigma(sigma) == timestep
    assert timestep_for_sigma(sigma, LINEAR.alphas_cumprod.tolist()) == timestep


@pytest.mark.parametrize("timestep", [0, 1, 17, 500, 998, 999])
def test_sigma_and_timestep_are_inverse(timestep: int) -> None:
    assert LINEAR.timestep_for_sigma(LINEAR.sigma(timestep)) == timestep


def test_nearest_in_abar_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for sigma in rng.uniform(0.01, 3, size=200):
        distance = [abs(LINEAR.abar(t) - 1 / (1 + 4 * sigma**2)) for t in range(len(LINEAR))]
        assert LINEAR.timestep_for_sigma(float(sigma)) == min(range(len(LINEAR)), key=distance.__getitem__)


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan"), float("inf")])
def test_sigma_must_be_positive(sigma: float) -> None:
    with pytest.raises(InputError, match="sigma"):
        LINEAR.timestep_for_sigma(sigma)


def test_sigma_beyond_the_schedule_names_the_largest() -> None:
    short = NoiseSchedule.linear(steps=50)
    with pytest.raises(InputError, match=f"use sigma <= {short.sigma(49):.4g}"):
        short.timestep_for_sigma(0.5)


@pytest.mark.parametrize("values", [[], [[0.9, 0.5]], [0.5, 0.9], [0.9, 0.9], [1.2, 0.5], [0.9, float("nan")]])
def test_a_schedule_must_fall(values: list[float]) -> None:
    with pytest.raises(InputError):
        NoiseSchedule(np.array(values))


def test_a_schedule_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        NoiseSchedule.linear().alphas_cumprod[0] = 0.5


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("scheduler", ["DDPMScheduler", "DDIMScheduler"])
def test_schedule_of_a_diffusers_configuration(kind: str, scheduler: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    reference = getattr(diffusers, scheduler)(beta_schedule=kind)
    ours = NoiseSchedule.from_config({**reference.config, "_class_name": scheduler})
    np.testing.assert_allclose(ours.alphas_cumprod, reference.alphas_cumprod.numpy(), rtol=1e-6)


def test_other_families_are_refused() -> None:
    with pytest.raises(InputError, match="FlowMatchEulerDiscreteScheduler"):
        NoiseSchedule.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler"})
