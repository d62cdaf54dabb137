"""The methods of a classification run: names and prompt files, turned into methods of one comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from certimed.certificates import END_TO_END
from certimed.engine import DENOISED, PLAIN, Method, Scores
from certimed.errors import InputError
from certimed.prompts import METHOD_NAMES, Prompt, prompt_methods
from certimed.runs.spec import Tuning
from certimed.vlm import VisionLanguageModel


@dataclass(frozen=True)
class MethodEntry:
    """A method as the manifest records it.

    Attributes:
        name: unique in the run.
        kind: what it does: one of :data:`certimed.prompts.METHOD_NAMES`. What its certificates may claim follows from
            this, not from its name.
        scope: of its certificates.
        identity: of its model.
    """

    name: str
    kind: str
    scope: str = END_TO_END
    identity: str | None = None


@dataclass(frozen=True)
class Prompting:
    """Names of methods, and the prompts that they need.

    Attributes:
        names: method names, in order.
        few_shot, pool: prompts read from files or made elsewhere.
        tuning: of per-image tuned prompts.
    """

    names: tuple[str, ...] = (PLAIN,)
    few_shot: Prompt | None = None
    pool: Prompt | None = None
    tuning: Tuning = field(default_factory=Tuning)

    @classmethod
    def read(cls, entries: Sequence[str], tuning: Tuning) -> Prompting:
        """Method names and prompt files.

        A file brings the method it was tuned with; "few-shot" and "both" need a few-shot file, "pool" a pool file.

        Raises:
            InputError: an entry that is neither, two files of one kind, or a file that is missing.
        """
        names: list[str] = []
        prompts: dict[str, Prompt] = {}
        for entry in entries:
            name = entry
            if entry not in METHOD_NAMES:
                if not Path(entry).is_file():
                    raise InputError(
                        f"method {entry} is neither a method ({', '.join(METHOD_NAMES)}) nor a prompt file; "
                        "make one with: certimed tune"
                    )
                prompt = Prompt.load(entry)
                name = prompt.method
                if name in prompts:
                    raise InputError(f"two {name} prompt files are named; certify them in two runs")
                prompts[name] = prompt
            if name not in names:
                names.append(name)
        for name, needed in (("few-shot", "few-shot"), ("both", "few-shot"), ("pool", "pool")):
            if name in names and needed not in prompts:
                raise InputError(
                    f"method {name} needs a tuned prompt: make one with certimed tune and name its file beside it"
                )
        return cls(tuple(names), prompts.get("few-shot"), prompts.get("pool"), tuning)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Classes of a tuned prompt, if there is one."""
        tuned = self.few_shot or self.pool
        return None if tuned is None else tuned.class_names

    @property
    def tuned_on(self) -> frozenset[str]:
        """Content ids of all images a prompt was tuned on."""
        return frozenset(item for prompt in (self.few_shot, self.pool) if prompt for item in prompt.tuned_on)

    def methods(
        self, vlm: VisionLanguageModel, class_names: Sequence[str], templates: Sequence[str], sigma: float
    ) -> list[Method]:
        """Methods of a comparison; baseline and learnt methods share the template."""
        return prompt_methods(
            vlm,
            class_names,
            self.names,
            sigma=sigma,
            context=self.tuning.initial_context or words_before_name(templates[0]),
            templates=templates,
            few_shot=self.few_shot,
            pool=self.pool,
            copies=self.tuning.copies,
            steps=self.tuning.steps,
            lr=self.tuning.lr,
        )


def score_methods(names: Sequence[str], classes: int | None = None) -> list[Method]:
    """The methods of a model that reads no prompt: "plain" and "denoised" (the model behind a denoiser)."""
    for name in names:
        if name not in (PLAIN, DENOISED):
            raise InputError(f"method {name} needs a model that reads prompts; this one serves {PLAIN} and {DENOISED}")
    return [Scores(name, classes, stream=DENOISED if name == DENOISED else PLAIN) for name in names]


def words_before_name(template: str) -> str:
    """Words of a template before the class name: where a learnable context starts from."""
    words = template.partition("{}")[0].strip()
    if not words:
        raise InputError(
            f"the template {template!r} has no words before the class name to start a context from; "
            "give an initial context"
        )
    return words
