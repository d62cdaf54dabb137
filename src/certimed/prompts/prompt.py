"""A learnt prompt as a small file: the context, and everything needed to know what it may be used with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from certimed.certificates.fields import Fields
from certimed.errors import InputError
from certimed.models.learnt import read_learnt, write_learnt
from certimed.prompts.learner import POSITIONS, Position, PromptLearner
from certimed.vlm.heads import PromptedClassifier
from certimed.vlm.protocol import VisionLanguageModel

SCHEMA = "certimed/prompt/1"
_WHAT = "prompt file's metadata"


@dataclass(frozen=True, eq=False)
class Prompt:
    """A tuned context, frozen, with its provenance.

    Attributes:
        context: float32 ``(M, token_dim)`` or ``(K, M, token_dim)``, on the CPU.
        class_names: the K classes it was tuned for, in order.
        model_identity, model_name: the vision-language model it was tuned on.
        method: ``"few-shot"`` or ``"pool"``.
        position, suffix: the prompt's layout, see :class:`~certimed.prompts.PromptLearner`.
        recipe: settings of the tuning.
        sigmas: noise levels it was tuned on.
        seed: of shots, order and noise.
        shots: labelled images per class; None for a method without labels.
        accuracies: noisy accuracy by part ("tuning", "held-out") and sigma.
        history: one record an epoch or step.
        tuned_on: content ids of the tuning images (see :func:`certimed.noise.content_id`), to refuse an overlap.
    """

    context: Tensor
    class_names: tuple[str, ...]
    model_identity: str
    model_name: str
    method: str
    position: Position = "end"
    suffix: str = "."
    recipe: Mapping[str, Any] = field(default_factory=dict)
    sigmas: tuple[float, ...] = ()
    seed: int = 0
    shots: int | None = None
    accuracies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    tuned_on: tuple[str, ...] = ()

    @classmethod
    def from_learner(cls, learner: PromptLearner, method: str, **metadata: Any) -> Prompt:
        """Freeze a learner's present context."""
        return cls(
            context=learner.context.detach().float().cpu().clone(),
            class_names=learner.class_names,
            model_identity=learner.vlm.identity,
            model_name=learner.vlm.name,
            method=method,
            position=learner.position,
            suffix=learner.suffix,
            **metadata,
        )

    @property
    def per_class(self) -> bool:
        """Whether each class has a context of its own."""
        return self.context.ndim == 3

    @property
    def identity(self) -> str:
        """Hex SHA-256 over all that decides the text features: context, class names, layout and model."""
        settled = [list(self.context.shape), self.class_names, self.model_identity, self.position, self.suffix]
        digest = hashlib.sha256(json.dumps(settled).encode())
        digest.update(self.context.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check(self, vlm: VisionLanguageModel, class_names: Sequence[str] | None = None) -> None:
        """Refuse another model or another class list.

        Raises:
            InputError: names the difference.
        """
        if self.model_identity != vlm.identity:
            raise InputError(
                f"the prompt was tuned on {self.model_name} (identity {self.model_identity[:12]}...), not on "
                f"{vlm.name} (identity {vlm.identity[:12]}...); load that model, or tune a prompt for this one"
            )
        if class_names is None or tuple(class_names) == self.class_names:
            return
        difference = class_difference(self.class_names, tuple(class_names))
        raise InputError(
            f"the prompt was tuned for other classes: {difference}; use the "
            "class list it was tuned for, or tune a prompt for this one"
        )

    def check_disjoint(self, items: Iterable[str]) -> None:
        """Refuse test images the prompt was tuned on.

        Args:
            items: content ids of the test images.

        Raises:
            InputError: says how many images are in both.
        """
        shared = set(self.tuned_on).intersection(items)
        if shared:
            raise InputError(
                f"{len(shared)} of the images to certify were used to tune the prompt (the first is {min(shared)}); "
                "leave them out, or tune on other images"
            )

    def learner(self, vlm: VisionLanguageModel) -> PromptLearner:
        """A learner that starts from this context; checks the model first."""
        self.check(vlm)
        return PromptLearner(vlm, self.class_names, self.context, position=self.position, suffix=self.suffix)

    def classifier(self, vlm: VisionLanguageModel) -> PromptedClassifier:
        """The classifier ``x -> logits`` with this prompt; its text features are computed once, here."""
        with torch.no_grad():
            return PromptedClassifier(vlm, self.learner(vlm).text_features())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write safetensors with the metadata as JSON in the header; whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        return write_learnt(path, {"context": self.context}, self.metadata(), "a prompt")

    def metadata(self) -> dict[str, Any]:
        """Everything but the context, as plain JSON types."""
        names = ("model_identity", "model_name", "method", "position", "suffix", "seed", "shots")
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in names},
            "class_names": list(self.class_names),
            "recipe": dict(self.recipe),
            "sigmas": list(self.sigmas),
            "accuracies": {part: dict(values) for part, values in self.accuracies.items()},
            "history": [dict(record) for record in self.history],
            "tuned_on": list(self.tuned_on),
            "identity": self.identity,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prompt:
        """Read a file written by :meth:`save`.

        Raises:
            InputError: no such file, not a prompt file, damaged, or altered (the stored identity does not match).
        """
        source = Path(path)
        tensors, text = read_learnt(source, "a prompt")
        if set(tensors) != {"context"}:
            raise InputError(f"{source} is a safetensors file but not a prompt saved by certimed; check the path")
        try:
            fields = Fields.parse(text, _WHAT)
            prompt = cls.from_fields(tensors["context"], fields)
            recorded = fields.string("identity")
        except InputError as error:
            raise InputError(f"{source} is not a usable prompt file: {error}") from error
        if recorded != prompt.identity:
            raise InputError(f"{source} was altered after it was saved: its identity does not match; tune again")
        return prompt

    @classmethod
    def from_fields(cls, context: Tensor, fields: Fields) -> Prompt:
        """From a context and its :meth:`metadata`; InputError where they do not fit."""
        fields.expect("schema", SCHEMA)
        class_names = fields.texts("class_names")
        position = fields.string("position")
        if position not in POSITIONS:
            raise InputError(f"position {position!r} is none of {', '.join(POSITIONS)}")
        _check_context(context, len(class_names))
        return cls(
            context=context,
            class_names=class_names,
            model_identity=fields.string("model_identity"),
            model_name=fields.string("model_name"),
            method=fields.string("method"),
            position=position,
            suffix=fields.string("suffix"),
            recipe=fields.mapping("recipe"),
            sigmas=fields.numbers("sigmas"),
            seed=fields.integer("seed"),
            shots=None if fields.get("shots") is None else fields.integer("shots"),
            accuracies=fields.shares("accuracies"),
            history=fields.records("history"),
            tuned_on=fields.texts("tuned_on"),
        )

    def __repr__(self) -> str:
        length = self.context.shape[-2]
        return (
            f"Prompt({self.method}, {length} {'per-class' if self.per_class else 'shared'} context tokens, "
            f"{len(self.class_names)} classes, model {self.model_name}, sigmas {self.sigmas}, seed {self.seed})"
        )


def _check_context(context: Tensor, classes: int) -> None:
    shape = tuple(context.shape)
    if context.dtype != torch.float32 or context.ndim not in (2, 3) or 0 in shape:
        raise InputError(f"the context is {context.dtype} of shape {shape}, not float32 (M, d) or (K, M, d)")
    if context.ndim == 3 and shape[0] != classes:
        raise InputError(f"the context has {shape[0]} classes but {classes} class names are recorded")
    if not bool(torch.isfinite(context).all()):
        raise InputError("the context has values that are not finite")


def class_difference(tuned: tuple[str, ...], asked: tuple[str, ...]) -> str:
    """How two class lists differ, in words."""
    missing = [name for name in tuned if name not in asked]
    new = [name for name in asked if name not in tuned]
    if not missing and not new:
        return f"the same names in another order (tuned: {', '.join(tuned)})"
    parts = [f"it knows {', '.join(map(repr, missing))}"] if missing else []
    return ", ".join(parts + ([f"it does not know {', '.join(map(repr, new))}"] if new else []))
