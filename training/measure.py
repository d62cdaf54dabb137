"""What a trained CLIP can and cannot do under Gaussian noise: plain prompts, a linear probe, few-shot prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from certimed.prompts.few_shot import Recipe, few_shot
from certimed.vlm import ZeroShotClassifier
from certimed.vlm.protocol import VisionLanguageModel

SIGMAS = (0.1, 0.25, 0.5, 1.0)
# Clopper-Pearson at n = 1 000, alpha 0.001 puts the lower bound above one half from 549 agreeing copies on.
WINNING_SHARE = 0.549

# Fixed here, so that a later change of the package's default recipe does not silently change what the model cards say.
TUNING = Recipe("model card", "adamw", lr=0.05, copies=10, batches=4)

Images = tuple[Tensor, Tensor]


@torch.no_grad()
def noisy_features(vlm: VisionLanguageModel, images: Tensor, sigma: float, draws: int, seed: int) -> Tensor:
    """Normalised features ``(N, draws, D)`` of noisy copies of ``(N, 3, S, S)``; noise in [0, 1] units, unclipped."""
    generator = Generator().manual_seed(seed)
    rows = []
    for image in images:
        noise = torch.randn((draws, *image.shape), generator=generator)
        rows.append(F.normalize(vlm.encode_image(image + sigma * noise), dim=-1))
    return torch.stack(rows)


def agreement(features: Tensor, weights: Tensor, labels: Tensor, bias: Tensor | float = 0.0) -> dict[str, float]:
    """Accuracy over single noisy copies, and the share of images whose right class wins by a certifiable margin.

    The second, ``smoothed``, stands for certified accuracy at radius 0 with n = 1 000 and alpha = 0.001.
    """
    right = ((features @ weights.T + bias).argmax(-1) == labels[:, None]).float()
    smoothed = (right.mean(1) >= WINNING_SHARE).float().mean().item()
    return {"noisy": round(right.mean().item(), 4), "smoothed": round(smoothed, 4)}


def linear_probe(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression on frozen features ``(N, draws, D)``; returns weights ``(K, D)`` and bias."""
    x = 20 * features.flatten(0, 1)
    y = labels.repeat_interleave(features.shape[1])
    weights = torch.zeros((classes, x.shape[1]), requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=150, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = F.cross_entropy(x @ weights.T + bias, y) + 1e-3 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    return 20 * weights.detach(), bias.detach()


def balanced_shots(tune: Images, shots: int, seed: int) -> Images:
    """``shots`` random images of every class."""
    generator = Generator().manual_seed(seed)
    order = torch.randperm(len(tune[1]), generator=generator)
    classes = range(int(tune[1].max()) + 1)
    keep = torch.cat([order[tune[1][order] == label][:shots] for label in classes])
    return tune[0][keep], tune[1][keep]


def report(
    vlm: VisionLanguageModel,
    names: Sequence[str],
    templates: Sequence[str],
    initial_context: str,
    test: Images,
    tune: Images,
    *,
    seed: int,
    draws: int = 100,
    shots: int = 16,
) -> dict[str, object]:
    """Clean accuracy; then per sigma plain prompts, linear probe, and few-shot prompts of several kinds.

    Args:
        test, tune: images ``(N, 3, S, S)`` in the certified space and their labels; disjoint.
        draws: noisy copies of each test image.
    """
    chosen, labels = balanced_shots(tune, shots, seed)
    learn = partial(few_shot, vlm, list(chosen), labels, names, recipe=TUNING, context=initial_context, seed=seed)
    plain = ZeroShotClassifier(vlm, names, templates).text_features
    with torch.no_grad():
        clean = F.normalize(vlm.encode_image(test[0]), dim=-1)
    result: dict[str, object] = {"clean": agreement(clean[:, None], plain, test[1])["noisy"], "shots": shots}
    learnt = {
        f"few-shot {kind}, mixed sigmas": learn(per_class=kind == "per class") for kind in ("shared", "per class")
    }
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for sigma in SIGMAS:
        seen = noisy_features(vlm, test[0], sigma, draws, seed)
        weights, bias = linear_probe(noisy_features(vlm, chosen, sigma, 16, seed + 1), labels, len(names))
        row = {"plain": agreement(seen, plain, test[1]), "linear probe": agreement(seen, weights, test[1], bias)}
        alone = {
            f"few-shot {kind}, this sigma only": learn(per_class=kind == "per class", sigmas=(sigma,))
            for kind in ("shared", "per class")
        }
        prompts = {**learnt, **alone}
        for name, prompt in prompts.items():
            row[name] = agreement(seen, prompt.learner(vlm).text_features(), test[1])
        rows[f"{sigma:g}"] = row
    result["sigma"] = rows
    return result


def table(result: dict[str, object]) -> str:
    """The report as a Markdown table: noisy / smoothed accuracy per method and sigma."""
    rows: dict[str, dict[str, dict[str, float]]] = result["sigma"]  # type: ignore[assignment]
    methods = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(f"sigma {sigma}" for sigma in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for method in methods:
        cells = [f"{row[method]['noisy']:.2f} / {row[method]['smoothed']:.2f}" for row in rows.values()]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
