"""Peak memory of a certificate grows with the batch, not with the number of samples."""

import subprocess
import sys

import pytest

MIB = 2**20
CODE = """
import resource
import torch
from certimed import SmoothedClassifier
from certimed.statistics import class_bound

torch.set_num_threads(1)
class_bound([5, 5], 0, 0.001, 1.0)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = lambda x: torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], dim=1)
SmoothedClassifier(model, 2, 0.25).certify(torch.full((3, 224, 224), 0.5), n={n})
print(peak() - before)
"""


def growth(n):
    pytest.importorskip("resource", reason="peak memory is read with the resource module")
    done = subprocess.run([sys.executable, "-c", CODE.format(n=n)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_is_bounded_by_the_batch():
    assert growth(400) < 400 * MIB


@pytest.mark.slow
def test_memory_is_flat_in_n():
    small, large = growth(400), growth(100_000)
    assert large < 400 * MIB
    assert large - small < 50 * MIB


MASKS = """
import resource, sys, torch
from certimed.segmentation import SmoothedSegmenter
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = torch.rand(1, 512, 512)
SmoothedSegmenter(lambda x: torch.cat([x, 1 - x], 1), 2, 0.25).certify(image, budget=sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def mask_mib(budget: int | str) -> float:
    pytest.importorskip("resource", reason="peak memory is read with the resource module")
    done = subprocess.run([sys.executable, "-c", MASKS, str(budget)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_peak_memory_of_a_large_mask():
    assert mask_mib(1_000) < 150


@pytest.mark.slow
def test_peak_memory_of_a_mask_does_not_grow_with_n():
    assert abs(mask_mib(10_000) - mask_mib(1_000)) < 10


@pytest.mark.slow
def test_peak_memory_of_a_mask_does_not_grow_with_looks():
    assert abs(mask_mib("pixels:200,400,1000,2000") - mask_mib(1_000)) < 10
