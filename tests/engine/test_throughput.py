"""The batch size that pays, on machines whose times are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from certimed.engine.throughput import check_batch_size, paying_batch_size, probe_batch_size, sample_seconds, settled
from certimed.errors import InputError, ModelError
from certimed.noise import as_law

LAW = as_law("float32", 0.5)


def test_the_smallest_size_within_reach_of_the_best_is_taken() -> None:
    # An overhead a call: 10 / b + 1 a sample. Within 3 % of the last one tried, 512: from 256 on.
    tried: list[int] = []

    def seconds(size: int) -> float:
        tried.append(size)
        return 10 / size + 1

    assert paying_batch_size(seconds).batch_size == 256
    # 256 gains 3.8 % on 128; 512 and 1024 gain less than 3 % on the best: no need to look further.
    assert tried == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def test_a_cache_that_overflows_stops_the_search() -> None:
    tried: list[int] = []

    def seconds(size: int) -> float:
        tried.append(size)
        return 1 / size + (1.5 if size > 16 else 1.0)

    assert paying_batch_size(seconds).batch_size == 16
    assert tried == [1, 2, 4, 8, 16, 32, 64]


def test_one_unlucky_doubling_does_not_stop_it() -> None:
    times = {1: 1.0, 2: 1.1, 4: 0.5, 8: 0.495, 16: 0.49}
    assert paying_batch_size(times.__getitem__).batch_size == 4


def test_memory_ends_the_search_but_not_the_run() -> None:
    def seconds(size: int) -> float:
        if size > 8:
            raise ModelError("batch_size=16 does not fit into memory; use a smaller one")
        return 1 / size

    assert paying_batch_size(seconds).batch_size == 8
    with pytest.raises(ModelError, match="does not fit"):
        paying_batch_size(lambda size: seconds(100))


def test_a_model_that_cannot_take_larger_batches_gets_what_fits() -> None:
    def model(x: Tensor) -> Tensor:
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x.flatten(1).sum(1)

    assert probe_batch_size(model, torch.zeros(1, 4, 4), LAW) <= 4


def test_other_errors_of_a_model_are_its_own() -> None:
    def model(x: Tensor) -> Tensor:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        probe_batch_size(model, torch.zeros(1, 4, 4), LAW)


def test_samples_are_timed_batch_by_batch_after_a_warm_up() -> None:
    seen: list[int] = []
    times = list(sample_seconds(lambda x: seen.append(len(x)) or x, torch.zeros(1, 4, 4), 5, LAW, repeats=3))
    assert seen == [5, 5, 5, 5]
    assert len(times) == 3
    assert all(time > 0 for time in times)


@pytest.mark.parametrize("wrong", [0, -1, "many", 2.5])
def test_batch_sizes_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="no batch size"):
        check_batch_size(wrong)  # type: ignore[arg-type]
    assert [check_batch_size(right) for right in (None, 1, "auto")] == [None, 1, "auto"]


def test_a_size_that_is_still_to_be_probed_is_no_size() -> None:
    assert [settled(size) for size in (None, 7)] == [None, 7]
    with pytest.raises(InputError, match="settled once a run"):
        settled("auto")
