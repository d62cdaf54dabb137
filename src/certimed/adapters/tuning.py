"""Learning on the image side under noise: noisy copies through the network, losses through the learnt parts alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from certimed.adapters.adaptation import CLASSES, MASKS, Adaptation
from certimed.adapters.parts import Installed, Parts
from certimed.adapters.places import body
from certimed.adapters.recipes import RECIPES, AdapterRecipe, Seen, loss_of
from certimed.denoising.training import augmented
from certimed.engine import as_image, check_sigma
from certimed.errors import InputError, ModelError
from certimed.models.weights import read_content
from certimed.noise import DEFAULT_LAW, NoiseKey, NoiseStream, as_law, content_id
from certimed.prompts import ContextStart, Prompt, PromptLearner, TuningProgress, refuse_overlap
from certimed.vlm import VisionLanguageModel, cosine_logits
from certimed.vlm.heads import zero_shot_features

HELD_OUT_COPIES = 2
_RECORDED = ("prompt", "bfloat16", "early_stop", "noise", "seed")
EVALUATIONS = 20
"""How often a tuning looks at images held back, and writes its checkpoint."""

Denoiser = Callable[[float], Callable[[Tensor], Tensor]]
"""From a noise level to ``x -> x``: the method ``at`` of :func:`certimed.denoising.load_denoiser`'s result."""


@dataclass(frozen=True)
class AdapterPlan:
    """How an adapter is learnt.

    Attributes:
        parts: what is learnt on the image side.
        recipe: a name in :data:`RECIPES` or an :class:`AdapterRecipe`.
        sigmas: noise levels mixed in one adapter; 0 is the clean image.
        prompt: whether a text context is learnt jointly (vision-language models).
        context, per_class: of that context, see :class:`certimed.prompts.PromptLearner`.
        early_stop: end after this many of :data:`EVALUATIONS` without a better mean accuracy on images held back; the
            best values are kept. None: the last values.
        noise: name of the noise law of the copies.
        bfloat16: run the network in autocast bfloat16; losses and learnt values stay float32.
        seed: of order, noise, augmentation and initial values.
    """

    parts: Parts = field(default_factory=Parts)
    recipe: str | AdapterRecipe = "default"
    sigmas: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0)
    prompt: bool = False
    context: ContextStart = 5
    per_class: bool = False
    early_stop: int | None = None
    noise: str = DEFAULT_LAW
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        levels = [0.0 if sigma == 0 else check_sigma(sigma) for sigma in self.sigmas]
        if not levels or len(set(levels)) != len(levels):
            raise InputError(f"sigmas={list(self.sigmas)} must be distinct noise levels, at least one of them")
        if isinstance(self.recipe, str) and self.recipe not in RECIPES:
            raise InputError(f"recipe={self.recipe!r} is unknown; use one of {', '.join(RECIPES)}")
        if self.early_stop is not None and self.early_stop < 1:
            raise InputError(f"early_stop={self.early_stop} must be 1 or more")

    @property
    def steps(self) -> AdapterRecipe:
        """The recipe itself."""
        return RECIPES[self.recipe] if isinstance(self.recipe, str) else self.recipe

    def settings(self) -> dict[str, Any]:
        """Plain JSON types, for the record and the checkpoint."""
        given = asdict(self.steps) | {name: getattr(self, name) for name in _RECORDED}
        if self.prompt:
            context = "given values" if isinstance(self.context, Tensor) else self.context
            given |= {"initial_context": context, "per_class": self.per_class}
        return given


@dataclass(frozen=True)
class Examples:
    """Images ``(N, C, *space)`` in the certified space and their truth: int64 ``(N,)``, or masks ``(N, *space)``."""

    images: Tensor
    truth: Tensor

    @property
    def items(self) -> list[str]:
        """Content ids."""
        return [content_id(as_image(image)) for image in self.images]


def adapt(
    model: Any,
    examples: Examples,
    class_names: Sequence[str],
    plan: AdapterPlan | None = None,
    *,
    templates: Sequence[str] = (),
    held_out: Examples | None = None,
    denoiser: Any = None,
    shots: int | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[TuningProgress], None] | None = None,
) -> Adaptation:
    """Learn an adapter on noisy copies of a few images; everything else stays frozen.

    It is fixed before any test image is seen, so certificates of the adapted model are end-to-end, as of any other
    fixed model. The same arguments give the same values on the same machine, interrupted or not: each step draws from
    its own key (seed, step).

    Args:
        model: a vision-language model, a classifier or a segmentation network, frozen.
        examples: what is learnt from; the truth is not read by recipes without labels.
        class_names: K names, in the order of the scores.
        plan: how; default: :class:`AdapterPlan()`.
        templates: captions of the frozen text side, for vision-language models.
        held_out: images held back, whose noisy accuracy is watched.
        denoiser: learn behind it, as :func:`certimed.denoising.load_denoiser` gives it: the adapter then belongs behind
            that denoiser.
        shots: images per class, for the record.
        checkpoint: file that an interrupted tuning goes on from; removed at the end.
        progress: told at every evaluation.

    Raises:
        InputError: an impossible setting, images of both parts, or a checkpoint of another tuning.
        ModelError: the loss is not finite.
        MissingExtraError: peft is not installed.
    """
    begin, how = time.perf_counter(), plan or AdapterPlan()
    items = examples.items
    if held_out is not None:
        refuse_overlap(items, held_out.items)
    elif how.early_stop is not None:
        raise InputError(f"early_stop={how.early_stop} needs images held back; add held_out")
    run = _Run(model, examples, tuple(class_names), how, tuple(templates), denoiser)
    spent = run.fit(held_out, checkpoint, items, progress)
    prompt = None
    if run.learner is not None:
        prompt = Prompt.from_learner(run.learner, "few-shot", recipe=how.settings(), sigmas=how.sigmas, seed=how.seed)
    return Adaptation(
        run.installed.values(),
        how.parts,
        tuple(examples.images.shape[1:]),
        CLASSES if examples.truth.ndim == 1 else MASKS,
        run.class_names,
        model.identity,
        model.name,
        "few-shot" if how.steps.labelled else "unlabelled",
        templates=() if prompt is not None else run.templates,
        prompt=prompt,
        denoiser=None if denoiser is None else denoiser.identity,
        noise=how.noise,
        recipe=how.settings(),
        sigmas=how.sigmas,
        seed=how.seed,
        shots=shots if how.steps.labelled else None,
        seconds=spent + time.perf_counter() - begin,
        accuracies={} if held_out is None else {"held_out": run.accuracy(held_out)},
        history=tuple(run.history),
        tuned_on=tuple(items),
    )


class _Run:
    """One tuning: the learnable copy, the frozen model, the optimiser, and how far it has got."""

    def __init__(
        self,
        model: Any,
        examples: Examples,
        class_names: tuple[str, ...],
        plan: AdapterPlan,
        templates: tuple[str, ...],
        denoiser: Any,
    ) -> None:
        self.model, self.examples, self.plan, self.recipe = model, examples, plan, plan.steps
        self.class_names, self.templates, self.denoiser = class_names, templates, denoiser
        self.device = next(model.parameters()).device
        self.installed = Installed(model, plan.parts, tuple(examples.images.shape[1:]), seed=plan.seed)
        groups: list[dict[str, Any]] = [{"params": list(self.installed.learnt.values()), "peak": self.recipe.lr}]
        self.learner: PromptLearner | None = None
        self.text: Tensor | None = None
        if isinstance(model, VisionLanguageModel):
            if plan.prompt:
                self.learner = PromptLearner(model, class_names, plan.context, per_class=plan.per_class, seed=plan.seed)
                peak = self.recipe.context_lr * self.learner.spread
                groups.append({"params": [self.learner.context], "peak": peak})
            if not templates:
                raise InputError("templates is empty; the frozen text side needs a caption such as 'an image of {}.'")
            self.text = zero_shot_features(model, class_names, templates)
        elif plan.prompt or templates:
            raise InputError(f"{model.name} reads no text; leave templates and the joint prompt out")
        if self.recipe.labelled and not 0 <= int(examples.truth.min()) <= int(examples.truth.max()) < len(class_names):
            raise InputError(f"the truth must lie in 0..{len(class_names) - 1}, one for each image or pixel")
        self.optimiser = torch.optim.AdamW(groups, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay)
        self.step, self.spent = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.best, self.kept = -1.0, self.state()

    def fit(
        self,
        held_out: Examples | None,
        checkpoint: Path | None,
        items: list[str],
        progress: Callable[[TuningProgress], None] | None,
    ) -> float:
        """All steps; the seconds of earlier calls, which a checkpoint remembers."""
        every = max(1, self.recipe.steps // EVALUATIONS)
        settings = json.dumps([self.plan.settings(), list(self.plan.sigmas), asdict(self.plan.parts), items])
        begin, losses = time.perf_counter(), 0.0
        if checkpoint is not None:
            self.resume(checkpoint, settings)
        before = self.spent
        while self.step < self.recipe.steps:
            losses += self.advance()
            if self.step % every and self.step < self.recipe.steps:
                continue
            found = None if held_out is None else self.accuracy(held_out)
            self.history.append({"step": self.step, "loss": losses / every, **({"held_out": found} if found else {})})
            if progress is not None:
                shown = None if found is None else {float(sigma): share for sigma, share in found.items()}
                mean = None if not found else sum(found.values()) / len(found)
                progress(TuningProgress("tuning", self.step, self.recipe.steps, losses / every, mean, shown))
            losses = 0.0
            if self.finished(found):
                break
            if checkpoint is not None:
                self.spent = before + time.perf_counter() - begin
                self.save(checkpoint, settings)
        if self.plan.early_stop is not None:
            self.restore(self.kept)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return before

    def finished(self, found: Mapping[str, float] | None) -> bool:
        """Keep the best values; whether patience is at its end."""
        if self.plan.early_stop is None or not found:
            return False
        mean = sum(found.values()) / len(found)
        if mean > self.best:
            self.best, self.kept = mean, self.state()
        seen = [sum(one["held_out"].values()) for one in self.history]
        return len(seen) - 1 - max(range(len(seen)), key=lambda place: (seen[place], -place)) >= self.plan.early_stop

    def advance(self) -> float:
        """One optimiser step, from the randomness of its number alone."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * recipe.rate(self.step)
        seen = self.batch()
        loss = loss_of(recipe, seen)
        if not bool(torch.isfinite(loss)):
            raise ModelError(f"the tuning loss is {float(loss.detach())} in step {self.step}; use a smaller lr")
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def batch(self) -> Seen:
        """Noisy copies of the step's images, through the copy; the clean images, through the frozen model."""
        rng = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.step)
        images, truth = self.drawn(rng)
        levels = torch.tensor(self.plan.sigmas)[torch.randint(len(self.plan.sigmas), (len(images),), generator=rng)]
        clean = clean_features = None
        if self.recipe.distils:
            with torch.no_grad():
                clean, clean_features = self.scores(self.model, images)
        repeats = self.recipe.copies
        images, levels = images.repeat_interleave(repeats, dim=0), levels.repeat_interleave(repeats)
        noisy = self.noisy(images, levels, f"step {self.step}")
        logits, features = self.scores(self.installed.model, noisy)
        if repeats > 1:
            truth = truth.repeat_interleave(repeats, dim=0)
            clean, clean_features = (
                None if one is None else one.repeat_interleave(repeats, dim=0) for one in (clean, clean_features)
            )
        return Seen(logits, features, truth, clean, clean_features)

    def drawn(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The images of this step: every image once before any comes again; augmented with their masks."""
        count, size = len(self.examples.images), max(1, self.recipe.batch // self.recipe.copies)
        chosen = []
        for position in range(self.step * size, (self.step + 1) * size):
            shuffle, place = divmod(position, count)
            order = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + 500_009 + shuffle)
            chosen.append(torch.randperm(count, generator=order)[place])
        index = torch.stack(chosen)
        images, truth = self.examples.images[index], self.examples.truth[index]
        if self.recipe.augment != "none":
            layers = functional.one_hot(truth).movedim(-1, 1).float() if truth.ndim > 1 else images[:, :0]
            both = augmented(torch.cat([images, layers.to(images)], dim=1), self.recipe.augment, rng)
            images, layers = both[:, : images.shape[1]], both[:, images.shape[1] :]
            truth = layers.argmax(dim=1) if truth.ndim > 1 else truth
        return images.to(self.device), truth.to(self.device)

    def noisy(self, images: Tensor, levels: Tensor, item: str) -> Tensor:
        """One noisy copy of each image at its level, behind the denoiser where there is one."""
        found = images.clone()
        for sigma in sorted(set(levels.tolist()) - {0.0}):
            rows = (levels == sigma).nonzero().flatten().to(images.device)
            law = as_law(self.plan.noise, next(one for one in self.plan.sigmas if abs(one - sigma) < 1e-6))
            key = NoiseKey(self.plan.seed, f"{item} sigma {sigma:g}", "tuning")
            noise = NoiseStream(key, tuple(images.shape[1:]), images.device, law=law).draw(len(rows))
            copies = law.noisy(law.origin(images[rows]), noise)
            if self.denoiser is not None:
                with torch.no_grad():
                    copies = self.denoiser.at(law.sigma).eval()(copies)
            found[rows] = copies
        return found

    def scores(self, model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and normalised features."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.plan.bfloat16):
            found = body(model)(x)
        found = found.float()
        if self.text is None:
            return found, found
        frozen = model is self.model
        text = self.text if self.learner is None or frozen else self.learner.text_features()
        return cosine_logits(found, text, self.model.logit_scale), functional.normalize(found, dim=-1)

    @torch.no_grad()
    def accuracy(self, examples: Examples) -> dict[str, float]:
        """Noisy accuracy at each level, on copies that are the same at every evaluation."""
        found = {}
        for sigma in self.plan.sigmas:
            hits = []
            for copy in range(HELD_OUT_COPIES if sigma else 1):
                for begin in range(0, len(examples.images), self.recipe.batch):
                    images = examples.images[begin : begin + self.recipe.batch].to(self.device)
                    levels = torch.full((len(images),), sigma)
                    noisy = self.noisy(images, levels, f"held out {begin} {copy}")
                    answers = self.scores(self.installed.model, noisy)[0].argmax(dim=1).cpu()
                    hits.append((answers == examples.truth[begin : begin + len(images)]).float().flatten())
            found[f"{sigma:g}"] = float(torch.cat(hits).mean())
        return found

    def state(self) -> dict[str, Tensor]:
        """Learnt values, the context among them."""
        context = {} if self.learner is None else {"context": self.learner.context.detach().clone()}
        return self.installed.values() | context

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Put values of :meth:`state` back."""
        self.installed.fill({name: value for name, value in values.items() if name in self.installed.learnt})
        if self.learner is not None:
            with torch.no_grad():
                self.learner.context.copy_(values["context"])

    def save(self, path: Path, settings: str) -> None:
        """All that the next call needs, whole or not at all."""
        content = {"settings": settings, "step": self.step, "spent": self.spent, "history": json.dumps(self.history)}
        partial = path.with_name(f"{path.name}.partial")
        states = {
            "values": self.state(),
            "best": self.best,
            "kept": self.kept,
            "optimiser": self.optimiser.state_dict(),
        }
        torch.save(content | states, partial)
        os.replace(partial, path)

    def resume(self, path: Path, settings: str) -> None:
        """Go on from a checkpoint, if there is one; InputError where it is of another tuning."""
        if not path.exists():
            return
        content = read_content(path)
        if content.get("settings") != settings:
            raise InputError(f"{path} belongs to a tuning with other settings or images; delete it, or choose another")
        self.restore(content["values"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.step, self.spent, self.best = int(content["step"]), float(content["spent"]), float(content["best"])
        self.history, self.kept = json.loads(content["history"]), content["kept"]
