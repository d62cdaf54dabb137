"""What was learnt on the image side of a frozen model, as a small file: tensors, and what they may be used with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from certimed.adapters.parts import LORA, Installed, Parts
from certimed.certificates.fields import Fields
from certimed.errors import InputError
from certimed.models.identity import combined
from certimed.models.learnt import read_learnt, write_learnt
from certimed.prompts import Learnt, Prompt
from certimed.vlm import VisionLanguageModel
from certimed.vlm.heads import zero_shot_features

SCHEMA = "certimed/adapter/1"
CLASSES, MASKS = "classes", "masks"
_CONTEXT = "prompt/context"
_WHAT = "adapter file's metadata"


@dataclass(frozen=True, eq=False)
class Adaptation(Learnt):
    """Learnt values, frozen, with their provenance.

    Attributes:
        tensors: float32 by name, on the CPU.
        parts: what they are of.
        shape: ``(C, *space)`` of an image in the certified space.
        task: ``"classes"`` or ``"masks"``.
        class_names: in the order of the scores.
        model_identity, model_name: the frozen model.
        method: ``"few-shot"`` or ``"unlabelled"``.
        templates: captions of the frozen text side, of vision-language models without ``prompt``.
        prompt: the context that was learnt jointly.
        denoiser: identity of the denoiser it was learnt behind, or None.
        noise: the noise law.
        recipe, sigmas, seed, shots: of the tuning; shots are None where no label was used.
        seconds: that it took.
        accuracies: by part and sigma: noisy accuracy, of masks the share of right pixels.
        history: one record an evaluation.
        tuned_on: content ids of the images, to refuse an overlap.
    """

    kind: ClassVar[str] = "adapter"

    tensors: Mapping[str, Tensor]
    parts: Parts
    shape: tuple[int, ...]
    task: str
    class_names: tuple[str, ...]
    model_identity: str
    model_name: str
    method: str
    templates: tuple[str, ...] = ()
    prompt: Prompt | None = None
    denoiser: str | None = None
    noise: str = "grid"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    sigmas: tuple[float, ...] = ()
    seed: int = 0
    shots: int | None = None
    seconds: float = 0.0
    accuracies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    tuned_on: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What was learnt, e.g. ``"lora"`` or ``"visual-prompt+prompt"``."""
        return "+".join([*self.parts.kinds, *(["prompt"] if self.prompt is not None else [])])

    @property
    def size(self) -> int:
        """Learnt numbers."""
        context = 0 if self.prompt is None else self.prompt.context.numel()
        return context + sum(value.numel() for value in self.tensors.values())

    @property
    def identity(self) -> str:
        """Hex SHA-256 over all that decides the adapted model's answers: values, parts, model, classes and text."""
        prompt = None if self.prompt is None else self.prompt.identity
        settled = [asdict(self.parts), self.shape, self.task, self.class_names, self.model_identity, self.templates]
        digest = hashlib.sha256(json.dumps([*settled, prompt]).encode())
        for name in sorted(self.tensors):
            digest.update(json.dumps([name, list(self.tensors[name].shape)]).encode())
            digest.update(self.tensors[name].contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def shots_digest(self) -> str:
        """Hex SHA-256 over the content ids of the images it was tuned on."""
        return hashlib.sha256("\n".join(sorted(self.tuned_on)).encode()).hexdigest()

    def apply(self, model: Any) -> Any:
        """The adapted model: a frozen copy that shares every tensor that was not learnt in; LoRA is merged.

        Its identity is that of model and adapter together.

        Raises:
            InputError: another model, or tensors that do not fit it.
        """
        self.check(model)
        installed = Installed(model, self.parts, self.shape)
        installed.fill(self.tensors)
        adapted = installed.settle()
        adapted.identity = combined("adapted", self.model_identity, self.identity)
        adapted.libraries = (*model.libraries, *(["peft"] if LORA in self.parts.kinds else []))
        return adapted

    def text_features(self, vlm: VisionLanguageModel) -> Tensor:
        """Normalised text features ``(K, D)``, from the text side of the model, adapted or not."""
        with torch.no_grad():
            if self.prompt is None:
                return zero_shot_features(vlm, self.class_names, self.templates)
            learner = Prompt.learner(self.prompt, vlm)
            return learner.text_features()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write safetensors with the metadata as JSON in the header; whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        tensors = dict(self.tensors)
        if self.prompt is not None:
            tensors[_CONTEXT] = self.prompt.context
        return write_learnt(path, tensors, self.metadata(), "an adapter")

    def metadata(self) -> dict[str, Any]:
        """Everything but the tensors, as plain JSON types."""
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in ("task", "method", "noise", "denoiser", "seconds")},
            **self._provenance(),
            "parts": {**asdict(self.parts), "kinds": list(self.parts.kinds)},
            "shape": list(self.shape),
            "templates": list(self.templates),
            "prompt": None if self.prompt is None else self.prompt.metadata(),
            "shots_digest": self.shots_digest,
            "identity": self.identity,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Adaptation:
        """Read a file written by :meth:`save`.

        Raises:
            InputError: no such file, no adapter file, damaged, or altered (the stored identity does not match).
        """
        source = Path(path)
        tensors, text = read_learnt(source, "an adapter")
        try:
            found = Fields.parse(text, _WHAT)
            made = cls._from_fields(tensors, found)
            recorded = (found.string("identity"), found.string("shots_digest"))
        except InputError as error:
            raise InputError(f"{source} is not a usable adapter file: {error}") from error
        if recorded != (made.identity, made.shots_digest):
            raise InputError(f"{source} was altered after it was saved: its identity does not match; tune again")
        return made

    @classmethod
    def _from_fields(cls, tensors: dict[str, Tensor], found: Fields) -> Adaptation:
        found.expect("schema", SCHEMA)
        if found.string("task") not in (CLASSES, MASKS):
            raise InputError(f"task {found.string('task')!r:.40} is neither {CLASSES} nor {MASKS}")
        prompt = None
        context = tensors.pop(_CONTEXT, None)
        if (context is None) != (found.get("prompt") is None):
            raise InputError("its prompt and its context do not go together")
        if context is not None:
            prompt = Prompt.from_fields(context, Fields(found.get("prompt"), _WHAT))
        for name, value in tensors.items():
            if value.dtype != torch.float32 or not bool(torch.isfinite(value).all()):
                raise InputError(f"tensor {name!r:.80} is no float32, or has values that are not finite")
        return cls(
            tensors,
            _parts(Fields(found.get("parts"), f"parts of the {_WHAT}")),
            found.integers("shape"),
            task=found.string("task"),
            method=found.string("method"),
            noise=found.string("noise"),
            templates=found.texts("templates"),
            prompt=prompt,
            denoiser=found.optional_string("denoiser"),
            seconds=found.number("seconds"),
            **cls._provenance_from(found),
        )

    def __repr__(self) -> str:
        return (
            f"Adaptation({self.name}, {self.size:,} numbers, {self.method}, {len(self.class_names)} classes, model "
            f"{self.model_name}, sigmas {self.sigmas}, seed {self.seed})"
        )


def _parts(found: Fields) -> Parts:
    unknown = set(found.data) ^ {one.name for one in fields(Parts)}
    if unknown:
        raise InputError(f"its parts and those that are known differ in {sorted(unknown)[0]!r:.40}")
    return Parts(
        found.texts("kinds"),
        rank=found.integer("rank"),
        scale=found.number("scale"),
        targets=found.string("targets"),
        tokens=found.integer("tokens"),
        deep=found.boolean("deep"),
    )
