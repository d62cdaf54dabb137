"""What a GPU does: precisions, pinned copies, noise, memory, batch sizes, compilation, streams, several GPUs.

`make test-gpu` runs them; they are skipped by name where there is no GPU.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_runs import lines, manifest, write_images
from torch import Tensor, nn

from certimed.classification import SmoothedClassifier
from certimed.engine import Acceleration, EmbeddingCache, ModelStream, noisy_batches
from certimed.engine.contract import check_one_answer
from certimed.engine.throughput import probe_batch_size
from certimed.executors import LocalExecutor
from certimed.noise import NoiseKey, NoiseStream, as_law
from certimed.runs import DataSpec, RunSpec
from certimed.runs.run import execute

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]
SHAPE = (3, 64, 64)
KEY = NoiseKey(0, "a", "estimation")


class Net(nn.Module):
    """A small network with convolutions, attention and a head."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(3, 32, 8, stride=8), nn.GroupNorm(4, 32)
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
            self.head = nn.Linear(32, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        return self.head(mixed.mean(dim=1))


def image(seed: int = 1) -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


def copies(count: int, device: str = "cuda") -> Tensor:
    return next(noisy_batches(image().to(device), as_law("grid", 0.25), KEY, count, batch_size=count))


@pytest.mark.parametrize(("precision", "share"), [("float16", 0.01), ("bfloat16", 0.05)])
@torch.no_grad()
def test_low_precisions_answer_as_float32_within_their_rounding_and_count_alike(precision: str, share: float) -> None:
    net, x = Net().cuda(), copies(64)
    low, exact = Acceleration(precision).wrap(net)(x), net(x)
    assert low.dtype == torch.float32
    assert float((low - exact).abs().max()) < share * float(exact.max() - exact.min())
    made = [
        SmoothedClassifier(model, 5, 0.25).certify(image(), n0=50, n=500, item_id="a")
        for model in (net, Acceleration(precision).wrap(net))
    ]
    assert made[0].prediction == made[1].prediction
    assert sum(abs(a - b) for a, b in zip(made[0].counts, made[1].counts)) <= 2 * share * 500
    assert made[1].provenance.dtype == f"{precision} autocast"
    assert made[1].provenance.device.startswith("cuda")


@torch.no_grad()
def test_the_batch_leaves_no_trace_in_an_answer() -> None:
    x = copies(8)
    seen = check_one_answer(Net().cuda(), x, image().cuda() + 50 * (x - image().cuda()), largest=16)
    assert seen.copies == 8


@pytest.mark.parametrize("law", ["grid", "float32"])
def test_noise_on_the_gpu_has_the_statistics_of_noise_on_the_cpu(law: str) -> None:
    drawn = {}
    for device in ("cpu", "cuda"):
        stream = NoiseStream(KEY, SHAPE, device, law=as_law(law, 0.25))
        drawn[device] = (stream.draw(16) / (65535 if law == "grid" else 1)).double().cpu().numpy().ravel()
    here, there = drawn["cpu"], drawn["cuda"]
    size, sigma = here.size, 0.25 if law == "grid" else 1.0
    for one in (here, there):
        assert abs(one.mean()) < 5 * sigma / math.sqrt(size)
        assert abs(one.var() / sigma**2 - 1) < 5 * math.sqrt(2 / size)
    assert stats.ks_2samp(here, there).pvalue > 1e-6
    assert not np.array_equal(here, there)


@pytest.mark.parametrize("law", ["grid", "float32"])
def test_noise_on_the_gpu_does_not_depend_on_the_batch(law: str) -> None:
    whole = NoiseStream(KEY, SHAPE, "cuda", law=as_law(law, 0.25)).draw(40)
    parts = NoiseStream(KEY, SHAPE, "cuda", law=as_law(law, 0.25))
    assert torch.equal(torch.cat([parts.draw(3), parts.draw(30), parts.draw(7)]), whole)
    assert torch.equal(NoiseStream(KEY, SHAPE, "cuda", start=33, law=as_law(law, 0.25)).draw(7), whole[33:])


def test_embeddings_kept_in_pinned_memory_come_back_as_they_were() -> None:
    stream, law, cache = ModelStream(Net().cuda()), as_law("grid", 0.25), EmbeddingCache()
    asked = (stream, image().cuda(), law, KEY, 100)
    first = cache.embeddings(*asked, batch_size=32)
    (entry,) = cache._entries.values()
    assert entry.is_pinned()
    assert torch.equal(cache.embeddings(*asked, batch_size=32), first)


def test_memory_is_flat_in_the_number_of_samples() -> None:
    smoothed = SmoothedClassifier(Net().cuda(), 5, 0.25)
    peaks = []
    for n in (2_000, 40_000):
        torch.cuda.reset_peak_memory_stats()
        smoothed.certify(image(), n=n, item_id="a", batch_size=256)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] <= 1.05 * peaks[0]


def test_the_probe_finds_a_batch_size_and_shrinks_to_what_fits() -> None:
    net, x = Net().cuda(), image().cuda()
    assert probe_batch_size(net, x, as_law("grid", 0.25)) >= 32
    free, _ = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 64 * 2**20 / free))
    try:
        torch.cuda.empty_cache()
        assert probe_batch_size(net, x, as_law("grid", 0.25)) < 1024
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@torch.no_grad()
def test_the_compiler_computes_the_same() -> None:
    net = Net().cuda()
    for precision in ("float32", "bfloat16"):
        plain, compiled = (Acceleration(precision, engine).wrap(net) for engine in ("torch", "compile"))
        for count in (32, 1, 7):
            torch.testing.assert_close(compiled(copies(count)), plain(copies(count)), rtol=0.02, atol=0.02)


def test_work_on_two_streams_gives_the_counts_of_work_on_one() -> None:
    net = Net().cuda()
    alone = [SmoothedClassifier(net, 5, 0.25).certify(image(i), n=500, item_id=str(i)).counts for i in range(2)]
    streams, beside = [torch.cuda.Stream() for _ in range(2)], []
    torch.cuda.synchronize()
    for number, stream in enumerate(streams):
        with torch.cuda.stream(stream):
            made = SmoothedClassifier(net, 5, 0.25).certify(image(number), n=500, item_id=str(number))
        beside.append(made.counts)
    torch.cuda.synchronize()
    assert beside == alone


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs here")
def test_workers_on_several_gpus_write_the_lines_of_one(tmp_path: Path) -> None:
    spec = RunSpec(
        model="python:tiny_models:classifier",
        data=DataSpec(str(write_images(tmp_path / "images", 4))),
        budget=50,
        n0=10,
        device="cuda",
    )
    execute(spec, tmp_path / "one", allow_code=True)
    crew = LocalExecutor(2, gpus=[str(number) for number in range(2)])
    execute(spec, tmp_path / "two", allow_code=True, executor=crew)
    assert lines(tmp_path / "two") == lines(tmp_path / "one")
    assert manifest(tmp_path / "two")["provenance"]["device"].startswith("cuda")
