"""The methods of a classification run: names and prompt files, turned into methods of one comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from certimed.certificates import END_TO_END
from certimed.engine import DENOISED, PLAIN, Method, Scores
from certimed.errors import InputError
from certimed.prompts import METHOD_NAMES, TUNED, Prompt, prompt_methods
from certimed.runs.targets import Tuning
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
class MethodSpec:
    """One entry of :attr:`RunSpec.methods`, read: ``KIND``, ``FILE``, ``NAME=FILE`` or ``NAME=KIND:steps=4:copies=50``.

    Attributes:
        name: unique in the run; where none is given, the kind.
        kind: one of :data:`certimed.prompts.METHOD_NAMES`; of a prompt file, the method it was tuned with.
        prompt: read from the file.
        tuning: of per-image tuned prompts.
    """

    name: str
    kind: str
    prompt: Prompt | None = None
    tuning: Tuning = field(default_factory=Tuning)

    @classmethod
    def read(cls, entry: str, tuning: Tuning) -> MethodSpec:
        """One entry; ``tuning`` holds where the entry does not say otherwise.

        Raises:
            InputError: neither a method nor a prompt file, or an option that is unknown or no number.
        """
        name, equals, source = entry.partition("=")
        if entry in METHOD_NAMES or Path(entry).is_file() or not equals:
            name, source = "", entry
        kind, _, options = source.partition(":")
        if kind in METHOD_NAMES:
            return cls(name or kind, kind, None, _changed(tuning, options, entry))
        if not Path(source).is_file():
            raise InputError(
                f"method {entry} is neither a method ({', '.join(METHOD_NAMES)}) nor a prompt file; "
                "make one with: certimed tune"
            )
        prompt = Prompt.load(source)
        return cls(name or prompt.method, prompt.method, prompt, tuning)


def _changed(tuning: Tuning, options: str, entry: str) -> Tuning:
    kinds: dict[str, type[int] | type[float]] = {"copies": int, "steps": int, "lr": float}
    given: dict[str, int | float] = {}
    for option in options.split(":") if options else ():
        name, _, value = option.partition("=")
        try:
            given[name] = kinds[name](value)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"option {option!r:.40} of method {entry!r:.80} is not understood; write e.g. "
                "NAME=zero-shot:steps=4:copies=50:lr=0.005"
            ) from error
    return replace(tuning, **given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Prompting:
    """The methods of a run, and the prompts that they need.

    Attributes:
        entries: in order.
    """

    entries: tuple[MethodSpec, ...] = (MethodSpec(PLAIN, PLAIN),)

    @classmethod
    def read(cls, entries: Sequence[str], tuning: Tuning) -> Prompting:
        """Methods and prompt files, see :class:`MethodSpec`.

        A file brings the method it was tuned with. The names "few-shot" and "pool" alone stand for the place of their
        file in the order, which has to be named too; "both" starts from the one few-shot file there is.

        Raises:
            InputError: an entry that is neither, a name that comes twice, or a file that is missing.
        """
        read = [MethodSpec.read(entry, tuning) for entry in entries]
        found: list[MethodSpec] = []
        for one in read:
            files = [other for other in read if other.kind == one.kind and other.prompt is not None]
            starts = [other for other in read if other.kind == "few-shot" and other.prompt is not None]
            if one.kind in TUNED and one.prompt is None:
                if not files:
                    raise InputError(
                        f"method {one.kind} needs a tuned prompt: make one with certimed tune and name its file beside "
                        "it"
                    )
                one = files[0]
            elif one.kind == "both":
                if len(starts) != 1:
                    raise InputError(
                        f"method both starts from one few-shot prompt and {len(starts)} are named; make one with "
                        "certimed tune and name its file beside it"
                    )
                one = replace(one, prompt=starts[0].prompt)
            if one not in found:
                found.append(one)
        names = [one.name for one in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(
                f"two methods are named {twice[0]}; give each a name of its own, e.g. 'shots 4=four.safetensors'"
            )
        return cls(tuple(found))

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of every method by its name."""
        return {one.name: one.kind for one in self.entries}

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Classes of a tuned prompt, if there is one."""
        return next((one.prompt.class_names for one in self.entries if one.prompt is not None), None)

    @property
    def tuned_on(self) -> frozenset[str]:
        """Content ids of all images a prompt was tuned on."""
        return frozenset(item for one in self.entries if one.prompt is not None for item in one.prompt.tuned_on)

    def methods(
        self, vlm: VisionLanguageModel, class_names: Sequence[str], templates: Sequence[str], sigma: float
    ) -> list[Method]:
        """Methods of a comparison; baseline and learnt methods share the template."""
        made: dict[str, Method] = {}
        for group in self._built_together():
            (few_shot,) = {one.prompt for one in group if one.kind in ("few-shot", "both")} or {None}
            (pool,) = {one.prompt for one in group if one.kind == "pool"} or {None}
            tuning = group[0].tuning
            found = prompt_methods(
                vlm,
                class_names,
                [one.kind for one in group],
                sigma=sigma,
                context=tuning.initial_context or words_before_name(templates[0]),
                templates=templates,
                few_shot=few_shot,
                pool=pool,
                copies=tuning.copies,
                steps=tuning.steps,
                lr=tuning.lr,
            )
            made |= {one.name: replace(method, name=one.name) for one, method in zip(group, found, strict=True)}
        return [made[one.name] for one in self.entries]

    def _built_together(self) -> list[list[MethodSpec]]:
        """Entries in groups of distinct kinds with one tuning, which share what is costly to set up."""
        groups: list[list[MethodSpec]] = []
        for one in self.entries:
            for group in groups:
                if group[0].tuning == one.tuning and all(other.kind != one.kind for other in group):
                    group.append(one)
                    break
            else:
                groups.append([one])
        return groups


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
