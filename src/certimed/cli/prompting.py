"""``--prompts``: names of methods and prompt files, turned into the methods of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certimed.errors import InputError
from certimed.prompts import METHOD_NAMES, Method, Prompt, prompt_methods
from certimed.vlm import VisionLanguageModel

_TUNED = ("few-shot", "pool")


@dataclass(frozen=True)
class Prompting:
    """What ``--prompts`` and its companions asked for.

    Attributes:
        names: method names, in order.
        few_shot, pool: prompts read from files or made in this run.
        initial_context: words the learnable context starts from; None takes them from the template.
        copies, steps, lr: of per-image tuning.
    """

    names: tuple[str, ...] = ("none",)
    few_shot: Prompt | None = None
    pool: Prompt | None = None
    initial_context: str | None = None
    copies: int = 100
    steps: int = 1
    lr: float = 5e-3

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Classes of a tuned prompt, if there is one."""
        tuned = self.few_shot or self.pool
        return None if tuned is None else tuned.class_names

    @property
    def tuned_on(self) -> frozenset[str]:
        """Content ids of all images a prompt was tuned on."""
        return frozenset(
            item for prompt in (self.few_shot, self.pool) if prompt is not None for item in prompt.tuned_on
        )

    def methods(
        self, vlm: VisionLanguageModel, class_names: Sequence[str], templates: Sequence[str], sigma: float
    ) -> list[Method]:
        """Methods of a comparison; baseline and learnt methods share the template."""
        return prompt_methods(
            vlm,
            class_names,
            self.names,
            sigma=sigma,
            context=self.initial_context or words_before_name(templates[0]),
            templates=templates,
            few_shot=self.few_shot,
            pool=self.pool,
            copies=self.copies,
            steps=self.steps,
            lr=self.lr,
        )

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "methods": list(self.names),
            "few_shot": None if self.few_shot is None else self.few_shot.identity,
            "pool": None if self.pool is None else self.pool.identity,
            "initial_context": self.initial_context,
            "copies": self.copies,
            "steps": self.steps,
            "lr": self.lr,
        }


def parse_prompts(text: str, **tuning: Any) -> Prompting:
    """Read ``--prompts``: method names and prompt files, separated by commas.

    A file brings the method it was tuned with; "few-shot" and "both" need a few-shot file, "pool" a pool file.
    """
    names: list[str] = []
    prompts: dict[str, Prompt] = {}
    for entry in (part.strip() for part in text.split(",")):
        name = entry
        if entry not in METHOD_NAMES:
            if not Path(entry).is_file():
                raise InputError(
                    f"--prompts {entry} is neither a method ({', '.join(METHOD_NAMES)}) nor a prompt file; "
                    "make one with: certimed tune"
                )
            prompt = Prompt.load(entry)
            name = prompt.method
            if name in prompts:
                raise InputError(f"--prompts names two {name} prompt files; certify them in two runs")
            prompts[name] = prompt
        if name not in names:
            names.append(name)
    for name in (*_TUNED, "both"):
        if name in names and ("few-shot" if name == "both" else name) not in prompts:
            raise InputError(
                f"--prompts {name} needs a tuned prompt: make one with certimed tune and name its file in --prompts"
            )
    return Prompting(tuple(names), few_shot=prompts.get("few-shot"), pool=prompts.get("pool"), **tuning)


def words_before_name(template: str) -> str:
    """Words of a template before the class name: where a learnable context starts from."""
    words = template.partition("{}")[0].strip()
    if not words:
        raise InputError(
            f"the template {template!r} has no words before the class name to start a context from; "
            "give them with --initial-context"
        )
    return words
