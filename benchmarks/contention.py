"""Time, page faults and memory beside busy neighbours and without, under each setting of threads and allocator.

    python -m benchmarks.contention [--rounds 3] [--neighbours 1] [--works clip,unet,vit] [--sides default,ours]

Each measurement is a process of its own, as the settings count from its start. Within a round the sides run one after
the other, first without and then with ``--neighbours`` spinning processes for every core, which this benchmark starts
and ends; reported are medians over rounds, and medians of the ratios within a round, which what else the machine does
disturbs least.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIDES: dict[str, dict[str, str]] = {
    "default": {},
    "spin": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "memory": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)},
    "ours": {},
}
WORKS = {"clip": 600, "unet": 40, "vit": 12}  # noisy copies
_OWN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_MEMORY = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def probe(work: str, side: str) -> dict[str, float]:
    """One measurement, in this process."""
    if side == "ours":
        from certimed import use_threads

        use_threads()
    import torch

    from certimed.engine import noisy_batches
    from certimed.noise import NoiseKey, as_law
    from certimed.targets.classes import default_batch_size

    model, image = _model(work)
    key, count = NoiseKey(0, "contention", "probe"), WORKS[work]

    def run(n: int) -> None:
        with torch.inference_mode():
            for batch in noisy_batches(
                image, as_law("float32", 0.25), key, n, batch_size=default_batch_size(tuple(image.shape))
            ):
                model(batch)

    run(max(1, count // 4))
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run(count)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {
        "seconds": seconds,
        "system share": system / (user + system),
        "page faults": float(after.ru_minflt - before.ru_minflt),
        "peak MB": after.ru_maxrss / 1024,
        "threads": float(torch.get_num_threads()),
    }


def _model(work: str) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    if work == "clip":
        from certimed.engine import ModelStream
        from certimed.vlm import load

        vlm = load("demo")
        return ModelStream(vlm), torch.rand(vlm.input_shape)
    if work == "unet":
        from certimed.segmenters.small_unet import SmallUNet

        return SmallUNet(1, 2, (32, 64, 128), 2).eval(), torch.rand(1, 256, 256)
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return CLIPVisionModel(CLIPVisionConfig(**sizes, patch_size=32, image_size=224)).eval(), torch.rand(3, 224, 224)


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """So many processes that do nothing, as fast as they can, and end with this one however it ends."""
    code = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def measure(work: str, side: str) -> dict[str, float]:
    """One measurement, in a process of its own."""
    bare = {name: value for name, value in os.environ.items() if name not in (*_OWN, *_MEMORY)}
    command = [sys.executable, "-m", "benchmarks.contention", "--probe", work, side]
    done = subprocess.run(command, env={**bare, **SIDES[side]}, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--probe", nargs=2, metavar=("WORK", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neighbours", type=int, default=1)
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.probe:
        print(json.dumps(probe(*given.probe)))
        return
    sides, cores = given.sides.split(","), len(os.sched_getaffinity(0))
    result: dict[str, Any] = {"cores": cores, "neighbours a core": given.neighbours, "works": {}}
    for work in given.works.split(","):
        found: dict[str, dict[str, list[dict[str, float]]]] = {s: {"idle": [], "crowded": []} for s in sides}
        for _ in range(given.rounds):
            for state, others in (("idle", 0), ("crowded", given.neighbours * cores)):
                with spinning(others):
                    for side in sides:
                        found[side][state].append(measure(work, side))
        for side, states in found.items():
            print(
                f"{work:5} {side:11}", *(_line(states[s], found[sides[0]][s], s) for s in states), sep="  ", flush=True
            )
        result["works"][work] = found
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def _line(own: list[dict[str, float]], first: list[dict[str, float]], state: str) -> str:
    middle = {name: statistics.median(one[name] for one in own) for name in own[0]}
    ratio = statistics.median(one["seconds"] / base["seconds"] for one, base in zip(own, first))
    return (
        f"{state} {middle['seconds']:.2f} s (x{ratio:.2f}), system {middle['system share']:.0%}, "
        f"{middle['page faults'] / 1000:.0f}k faults, {middle['peak MB']:.0f} MB"
    )


if __name__ == "__main__":
    main()
