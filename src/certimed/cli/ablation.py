"""Several settings of one prompt method side by side on the same noise: the published ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from certimed.cli.prompting import Prompting
from certimed.errors import InputError
from certimed.prompts import Method
from certimed.vlm import VisionLanguageModel


@dataclass(frozen=True)
class Entry:
    """One row of an ablation: its name, the method, and the settings it is made with."""

    name: str
    method: str
    prompting: Prompting


@dataclass(frozen=True)
class Ablation(Prompting):
    """What ``classify`` takes for prompts, with a method under several settings.

    Attributes:
        entries: rows, in order; ``names`` repeats their names.
    """

    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Ablation:
        """An ablation of these rows; raises InputError if a name repeats."""
        names = tuple(entry.name for entry in entries)
        if len(set(names)) != len(names):
            raise InputError(f"--values repeats a value ({', '.join(names)}); list each once")
        return cls(names=names, entries=tuple(entries))

    @property
    def tuned_on(self) -> frozenset[str]:
        """Content ids of all images any of the prompts was tuned on."""
        return frozenset(item for entry in self.entries for item in entry.prompting.tuned_on)

    def methods(
        self, vlm: VisionLanguageModel, class_names: Sequence[str], templates: Sequence[str], sigma: float
    ) -> list[Method]:
        """One method a row; all of them share the embeddings of the noisy copies."""
        made = []
        for entry in self.entries:
            alone = replace(entry.prompting, names=(entry.method,))
            (method,) = alone.methods(vlm, class_names, templates, sigma)
            made.append(replace(method, name=entry.name))
        return made

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "methods": list(self.names),
            "ablation": {entry.name: {"method": entry.method, **entry.prompting.record()} for entry in self.entries},
        }
