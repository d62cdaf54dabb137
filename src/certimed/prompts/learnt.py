"""What prompts and adapters have in common: the model, classes and images they belong to, and how they were tuned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from certimed.certificates.fields import Fields
from certimed.errors import InputError


class _Named(Protocol):
    @property
    def identity(self) -> str: ...
    @property
    def name(self) -> str: ...


class Learnt:
    """Frozen values that were learnt for one model and one list of classes; subclasses hold the values.

    Attributes:
        kind: the word for messages.
        class_names: in order.
        model_identity, model_name: the frozen model.
        recipe, sigmas, seed: of the tuning.
        shots: labelled images per class; None for a method without labels.
        accuracies: by part and sigma.
        history: one record an evaluation.
        tuned_on: content ids of the tuning images.
    """

    kind: ClassVar[str]
    class_names: tuple[str, ...]
    model_identity: str
    model_name: str
    recipe: Mapping[str, Any]
    sigmas: tuple[float, ...]
    seed: int
    shots: int | None
    accuracies: Mapping[str, Mapping[str, float]]
    history: tuple[Mapping[str, Any], ...]
    tuned_on: tuple[str, ...]

    def check(self, model: _Named, class_names: Sequence[str] | None = None) -> None:
        """Refuse another model or another class list.

        Raises:
            InputError: names the difference.
        """
        one = f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"
        if self.model_identity != model.identity:
            raise InputError(
                f"the {self.kind} was tuned on {self.model_name} (identity {self.model_identity[:12]}...), not on "
                f"{model.name} (identity {model.identity[:12]}...); load that model, or tune {one} for this one"
            )
        if class_names is not None and tuple(class_names) != self.class_names:
            raise InputError(
                f"the {self.kind} was tuned for other classes: {_difference(self.class_names, tuple(class_names))}; "
                f"use the class list it was tuned for, or tune {one} for this one"
            )

    def check_disjoint(self, items: Iterable[str]) -> None:
        """Refuse test images it was tuned on.

        Args:
            items: content ids of the test images.

        Raises:
            InputError: says how many images are in both.
        """
        shared = set(self.tuned_on).intersection(items)
        if shared:
            raise InputError(
                f"{len(shared)} of the images to certify were used to tune the {self.kind} (the first is "
                f"{min(shared)}); leave them out, or tune on other images"
            )

    def _provenance(self) -> dict[str, Any]:
        """The common attributes as plain JSON types; :meth:`_provenance_from` is the inverse."""
        return {
            **{name: getattr(self, name) for name in ("model_identity", "model_name", "seed", "shots")},
            "class_names": list(self.class_names),
            "recipe": dict(self.recipe),
            "sigmas": list(self.sigmas),
            "accuracies": {part: dict(values) for part, values in self.accuracies.items()},
            "history": [dict(record) for record in self.history],
            "tuned_on": list(self.tuned_on),
        }

    @staticmethod
    def _provenance_from(fields: Fields) -> dict[str, Any]:
        """The common attributes; InputError names the field that is wrong."""
        return {
            "class_names": fields.texts("class_names"),
            "model_identity": fields.string("model_identity"),
            "model_name": fields.string("model_name"),
            "recipe": fields.mapping("recipe"),
            "sigmas": fields.numbers("sigmas"),
            "seed": fields.integer("seed"),
            "shots": None if fields.get("shots") is None else fields.integer("shots"),
            "accuracies": fields.shares("accuracies"),
            "history": fields.records("history"),
            "tuned_on": fields.texts("tuned_on"),
        }


def _difference(tuned: tuple[str, ...], asked: tuple[str, ...]) -> str:
    """How two class lists differ, in words."""
    missing = [name for name in tuned if name not in asked]
    new = [name for name in asked if name not in tuned]
    if not missing and not new:
        return f"the same names in another order (tuned: {', '.join(tuned)})"
    parts = [f"it knows {', '.join(map(repr, missing))}"] if missing else []
    return ", ".join(parts + ([f"it does not know {', '.join(map(repr, new))}"] if new else []))
