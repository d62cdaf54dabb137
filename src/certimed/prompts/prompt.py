"""A learnt prompt as a small file: the context, and everything needed to know what it may be used with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from certimed.certificates.fields import Fields
from certimed.errors import InputError
from certimed.models.learnt import read_learnt, write_learnt
from certimed.prompts.learner import POSITIONS, Position, PromptLearner
from certimed.prompts.learnt import Learnt
from certimed.vlm.heads import PromptedClassifier
from certimed.vlm.protocol import VisionLanguageModel

SCHEMA = "certimed/prompt/1"
_WHAT = "prompt file's metadata"


@dataclass(frozen=True, eq=False)
class Prompt(Learnt):
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

    kind: ClassVar[str] = "prompt"

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
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in ("method", "position", "suffix")},
            **self._provenance(),
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
        position = fields.string("position")
        if position not in POSITIONS:
            raise InputError(f"position {position!r} is none of {', '.join(POSITIONS)}")
        _check_context(context, len(fields.texts("class_names")))
        return cls(
            context=context,
            method=fields.string("method"),
            position=position,
            suffix=fields.string("suffix"),
            **cls._provenance_from(fields),
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
