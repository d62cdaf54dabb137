"""What every test runs under."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("certimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("certimed")


@pytest.fixture(autouse=True)
def global_state_is_nobodys() -> Iterator[None]:
    """Randomness and threads are arguments here: no test may leave the global ones changed for the next."""
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    yield
    torch.random.set_rng_state(state)
    torch.set_num_threads(threads)
