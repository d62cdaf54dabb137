"""One certificate in a process of its own: its seconds and the memory it took; prints one line of JSON.

    python -m benchmarks.performance.probe '{"kind": "budget", "budget": "grid@4000"}'

Run by the sections about memory and about the other toolbox, there with the other toolbox's Python.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import stopwatch

Work = Callable[[], Any]
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class Threshold(nn.Module):
    """Two classes by the value of one pixel: costs nothing, so that only the engine's memory shows."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *space) -> (B, 2)``."""
        first = x.flatten(1)[:, 0]
        return torch.stack([first, 1 - first], dim=1)


class PixelThreshold(nn.Module):
    """Two classes for every pixel by its first channel."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *space) -> (B, 2, *space)``."""
        return torch.cat([1 - x[:, :1], x[:, :1]], dim=1)


def peak_bytes() -> int:
    """Largest memory this process has held; reset by :func:`forget_peak` where the system can."""
    if _STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        assert found is not None
        return 1024 * int(found[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak() -> None:
    """Start the peak anew at what is held now (Linux)."""
    if _RESET.exists():
        _RESET.write_text("5")


def budget_work(task: dict[str, Any]) -> Work:
    """Classify 224x224 colour images under a budget, with a model that costs nothing."""
    from certimed.classification import SmoothedClassifier

    smoothed = SmoothedClassifier(Threshold().eval(), 2, 0.25, noise="float32")
    image = torch.full((3, 224, 224), 0.4)
    return lambda: smoothed.certify(image, budget=task["budget"]).n


def mask_work(task: dict[str, Any]) -> Work:
    """Segment 256x256 images under a budget."""
    from certimed.segmentation import SmoothedSegmenter

    smoothed = SmoothedSegmenter(PixelThreshold().eval(), 2, 0.25, noise="float32")
    image = torch.linspace(0, 1, 256 * 256).reshape(1, 256, 256)
    return lambda: smoothed.certify(image, budget=task["budget"], batch_size=8).n


def published_mask_work(task: dict[str, Any]) -> Work:
    """The published segmentation loop, all predictions kept; the tests are left out, they take no memory."""
    from benchmarks.reference.segcertify import all_predictions

    model, n = PixelThreshold().eval(), int(task["n"])
    image = torch.linspace(0, 1, 256 * 256).reshape(1, 256, 256)
    return lambda: len(all_predictions(model, (image + 0.25 * torch.randn(image.shape) for _ in range(n))))


def demo_classifier(task: dict[str, Any]) -> tuple[Any, list[Tensor], int]:
    """The demo model with plain prompts, its first images, and its number of classes."""
    from benchmarks.home import Places
    from benchmarks.performance.classification import demo_world, inputs, zero_shot

    world = demo_world(Places(), task["images"])
    return zero_shot(world), [image for _, image, _ in inputs(world)], len(world.names)


def certimed_work(task: dict[str, Any]) -> Work:
    """This package on the demo model: class, radius and samples of every image."""
    from benchmarks.performance.engines import Encoded
    from certimed.classification import SmoothedClassifier
    from certimed.engine import Acceleration

    model, images, classes = demo_classifier(task)
    speed = Acceleration(task.get("precision", "float32"), task.get("engine", "torch"))
    run = Encoded(model.vlm, model.text_features, speed)
    smoothed = SmoothedClassifier(run, classes, task["sigma"], noise="float32")
    smoothed.certify(images[0], n0=32, n=32)

    def certify() -> list[list[float]]:
        made = [smoothed.certify(image, n0=task["n0"], budget=task["budget"]) for image in images]
        return [[one.prediction, one.radius, one.n] for one in made]

    return certify


def art_work(task: dict[str, Any]) -> Work:
    """adversarial-robustness-toolbox on the demo model, its batch size the default: class, radius and samples."""
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    model, images, classes = demo_classifier(task)
    smoothed = PyTorchRandomizedSmoothing(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images[0].shape),
        nb_classes=classes,
        clip_values=None,
        device_type="cpu",
        sample_size=task["n0"],
        scale=task["sigma"],
        alpha=task["alpha"],
    )
    batch = torch.stack(images).numpy()
    smoothed.certify(batch[:1], n=32)

    def certify() -> list[list[float]]:
        found, radii = smoothed.certify(batch, n=task["n"])
        return [[int(one), float(radius), task["n"]] for one, radius in zip(found, radii)]

    return certify


WORKS: dict[str, Callable[[dict[str, Any]], Work]] = {
    "budget": budget_work,
    "mask": mask_work,
    "published mask": published_mask_work,
    "certimed": certimed_work,
    "art": art_work,
}


def main() -> None:
    """Do the task given as JSON."""
    task = json.loads(sys.argv[1])
    torch.set_num_threads(int(task.get("threads", 1)))
    work = WORKS[task["kind"]](task)
    forget_peak()
    before, begin = peak_bytes(), stopwatch()
    result = work()
    seconds = stopwatch() - begin
    print(json.dumps({"seconds": seconds, "bytes": peak_bytes() - before, "peak": peak_bytes(), "result": result}))


if __name__ == "__main__":
    main()
