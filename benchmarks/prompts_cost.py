"""What prompt methods cost: several at once, tuning at test time, and the published loop beside ours.

    python -m benchmarks.prompts_cost [--parts methods,per-sample,zero-shot,loop] [--repeats 3] [--threads 2]

``methods`` runs on the demo model at n = 2 000; the others on a CLIP of PLIP's exact size (ViT-B/32 at 224, text 512
wide, 12 layers) with random weights and CLIP's own vocabulary, 9 classes of colon tissue. The sides of each comparison
run in turn, in one process; medians with their range are printed, and the median of the ratios of adjacent runs, of
clock and of processor time (with one thread the latter is the steadier figure on a busy machine).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.models import clip_sized
from benchmarks.reference.cohen_promptsmooth import PromptedModel, certify
from benchmarks.timing import Times, alternate
from certimed.assets import demo_prompts
from certimed.noise import NoiseKey, NoiseStream
from certimed.presets import classification_preset
from certimed.prompts import (
    EntropyTuner,
    LinearText,
    PerSample,
    PerSampleClassifier,
    PromptComparison,
    PromptLearner,
    few_shot,
    pool,
    prompt_methods,
)
from certimed.prompts.methods import Method
from certimed.vlm import VisionLanguageModel, load

PARTS = ("methods", "per-sample", "zero-shot", "loop")
ROWS_TIMED = 12
KATHER = classification_preset("kather")


class _Enough(Exception):
    """Ends the set-up of the linearised encoder after a few rows."""


def show(title: str, times: dict[str, list[Times]], bar: str) -> None:
    """Medians, ranges, and the ratio of the second side to the first."""
    print(f"\n{title}")
    for name, runs in times.items():
        walls = [run.wall for run in runs]
        print(
            f"  {name:<46} median {statistics.median(walls):8.3f} s  ({min(walls):.3f} to {max(walls):.3f}), "
            f"processor {statistics.median(run.processor for run in runs):8.3f} s"
        )
    first, second = list(times.values())[:2]
    for kind in Times._fields:
        ratios = sorted(getattr(b, kind) / getattr(a, kind) for a, b in zip(first, second))
        spread = f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"  ratio, {kind:<9} {statistics.median(ratios):.3f} {spread}; {bar}", flush=True)


def methods_at_once(repeats: int, n: int) -> None:
    """Five methods in one run against one method alone, on the demo model."""
    words = demo_prompts()
    names, context = list(words["classes"].values()), words["initial_context"]
    vlm = load("demo")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((len(names) + 1, *vlm.input_shape), generator=generator)
    learnt = few_shot(vlm, images[:-1], list(range(len(names))), names, epochs=1, context=context)
    pooled = pool(vlm, images[:2], names, sigmas=(0.5,), context=context, copies=4)

    def comparison(*methods: str) -> PromptComparison:
        made = prompt_methods(vlm, names, methods, sigma=0.5, context=context, few_shot=learnt, pool=pooled)
        return PromptComparison(vlm, made, 0.5)

    one, five = comparison("none"), comparison("none", "few-shot", "zero-shot", "both", "pool")
    sides: dict[str, Callable[[], object]] = {
        "one method": lambda: one.run(images[-1], n0=100, n=n),
        "five methods, 100 tuning copies included": lambda: five.run(images[-1], n0=100, n=n),
    }
    show(f"several methods at once (demo model, n0 = 100, n = {n})", alternate(sides, repeats), "bar 1.15")


def per_sample(vlm: VisionLanguageModel, repeats: int, n: int) -> None:
    """Tuning inside the base classifier against plain smoothing; the set-up of the linearised encoder apart."""
    learner = PromptLearner(vlm, KATHER.class_names, KATHER.initial_context)
    marks: list[float] = [time.perf_counter()]

    def watch(done: int, total: int) -> None:
        marks.append(time.perf_counter())
        if done == ROWS_TIMED:
            raise _Enough

    try:
        LinearText(learner, progress=watch)
    except _Enough:
        each = (marks[-1] - marks[1]) / (ROWS_TIMED - 1)
    seconds = marks[1] - marks[0] - each + vlm.embedding_dim * each
    linear = stand_in(learner)
    plain = prompt_methods(vlm, KATHER.class_names, ["none"], sigma=0.25, context=KATHER.initial_context)
    tuned: list[Method] = [PerSample("per-sample", PerSampleClassifier(vlm, linear).eval())]
    image = torch.rand(vlm.input_shape, generator=torch.Generator().manual_seed(1))
    sides = {name: certifier(vlm, made, image, n) for name, made in (("plain", plain), ("per-sample", tuned))}
    show(f"per-sample tuning (PLIP size, {n} copies)", alternate(sides, repeats), "bar 1.10")
    print(f"  set-up, once for a class list: about {seconds:.0f} s ({vlm.embedding_dim} rows, {each:.3f} s each)")


def stand_in(learner: PromptLearner) -> LinearText:
    """The linearised encoder with a random Jacobian of the right size: it costs the same and takes no set-up."""
    linear = object.__new__(LinearText)
    with torch.no_grad():
        linear.text_features = learner.text_features()
    size = (*linear.text_features.shape, learner.length * learner.vlm.token_dim)
    linear.jacobian = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 1e-3
    linear.per_class, linear.logit_scale = False, learner.vlm.logit_scale
    return linear


def certifier(vlm: VisionLanguageModel, methods: Sequence[Method], image: torch.Tensor, n: int) -> Callable[[], object]:
    """One certificate with one list of methods."""
    comparison = PromptComparison(vlm, methods, 0.25)
    return lambda: comparison.run(image, n0=16, n=n - 16, batch_size=16)


def zero_shot(vlm: VisionLanguageModel, repeats: int) -> None:
    """Per-image tuning on embedded copies against one forward and backward pass of the text encoder."""
    learner = PromptLearner(vlm, KATHER.class_names, KATHER.initial_context)
    tuner = EntropyTuner(learner)
    embedded = torch.randn((100, vlm.embedding_dim), generator=torch.Generator().manual_seed(2))
    weights = torch.randn(tuner.learner.base.shape[0], vlm.embedding_dim)

    def forward_backward() -> None:
        (learner.text_features() * weights).sum().backward()  # type: ignore[no-untyped-call]
        learner.context.grad = None

    sides: dict[str, Callable[[], object]] = {
        f"text encoder, {learner.base.shape[1]} tokens, forward + backward": forward_backward,
        "zero-shot tuning of one image": lambda: tuner.tune(embedded),
    }
    show("zero-shot tuning beyond embedding its 100 copies (PLIP size)", alternate(sides, 3 * repeats), "bar 2")


def loop(vlm: VisionLanguageModel, repeats: int, n: int) -> None:
    """Certifying one image: ours encodes the text once, the published loop for every batch at 77 tokens."""
    image = torch.rand(vlm.input_shape, generator=torch.Generator().manual_seed(1))
    names = list(KATHER.class_names)
    plain = prompt_methods(vlm, names, ["none"], sigma=0.25, context=KATHER.initial_context)
    published = PromptedModel(vlm, names, KATHER.initial_context)

    def reference() -> object:
        streams = [NoiseStream(NoiseKey(0, "a", phase), tuple(image.shape)) for phase in ("selection", "estimation")]
        noise = (streams[0].draw, streams[1].draw)
        return certify(published, len(names), image, 0.25, noise, n0=16, n=n - 16, alpha=1e-3, batch_size=16)

    sides = {"certimed": certifier(vlm, plain, image, n), "published loop, rewritten": reference}
    title = f"one image, text encoded once against once a batch (PLIP size, {n} copies, batches of 16)"
    show(title, alternate(sides, repeats), "no bar")


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--copies", type=int, default=64, help="noisy copies on the model of PLIP's size")
    parser.add_argument("--n", type=int, default=2_000, help="noisy copies on the demo model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    parts = given.parts.split(",")
    print(f"{given.threads} threads, torch {torch.__version__}, {given.repeats} repeats")
    if "methods" in parts:
        methods_at_once(given.repeats, given.n)
    if set(parts) - {"methods"}:
        with tempfile.TemporaryDirectory() as folder:
            vlm = clip_sized(Path(folder))
            if "zero-shot" in parts:
                zero_shot(vlm, given.repeats)
            if "per-sample" in parts:
                per_sample(vlm, given.repeats, given.copies)
            if "loop" in parts:
                loop(vlm, given.repeats, given.copies)


if __name__ == "__main__":
    main()
