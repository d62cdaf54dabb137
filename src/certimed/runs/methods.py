"""The methods of a run: names, prompt files and adapter files, turned into methods of one comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from certimed.adapters import ADAPTED, ADAPTER_SCHEMA, TEST_TIME, Adaptation, TestTimeLora, adapted_method
from certimed.certificates import END_TO_END
from certimed.engine import DENOISED, PLAIN, Method, Scores
from certimed.errors import InputError
from certimed.models.learnt import learnt_schema
from certimed.prompts import METHOD_NAMES, TUNED, Prompt, prompt_methods
from certimed.runs.targets import Tuning
from certimed.vlm import VisionLanguageModel
from certimed.vlm.heads import zero_shot_features

NAMED = (*METHOD_NAMES, TEST_TIME)
"""Methods that are named; all others are files."""
_BEHIND = f"{DENOISED}+"


@dataclass(frozen=True)
class MethodEntry:
    """A method as the manifest records it.

    Attributes:
        name: unique in the run.
        kind: what it does: one of :data:`NAMED`, or :data:`certimed.adapters.ADAPTED`. What its certificates may claim
            follows from this, not from its name.
        scope: of its certificates.
        identity: of its model; of an adapted one, of base model and adapter together.
        adapter: digest of the adapter, of adapted methods.
    """

    name: str
    kind: str
    scope: str = END_TO_END
    identity: str | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class MethodSpec:
    """One entry of :attr:`RunSpec.methods`, read: ``KIND``, ``FILE``, ``NAME=FILE`` or ``NAME=KIND:steps=4:copies=50``;
    ``denoised+FILE`` puts an adapter behind the denoiser.

    Attributes:
        name: unique in the run; where none is given, the kind, or what an adapter has learnt.
        kind: as of :class:`MethodEntry`; of a prompt file, the method it was tuned with.
        prompt, adaptation: read from the file.
        behind: whether the denoiser stands in front: asked for, or what an adapter was learnt behind.
        tuning: of methods that tune on the image.
    """

    name: str
    kind: str
    prompt: Prompt | None = None
    adaptation: Adaptation | None = None
    behind: bool = False
    tuning: Tuning = field(default_factory=Tuning)

    @classmethod
    def read(cls, entry: str, tuning: Tuning) -> MethodSpec:
        """One entry; ``tuning`` holds where the entry does not say otherwise.

        Raises:
            InputError: neither a method nor a file, or an option that is unknown or no number.
        """
        name, equals, source = entry.partition("=")
        if entry in NAMED or Path(entry.removeprefix(_BEHIND)).is_file() or not equals:
            name, source = "", entry
        kind, _, options = source.partition(":")
        if kind in NAMED:
            return cls(name or kind, kind, behind=kind == DENOISED, tuning=_changed(tuning, options, entry))
        asked, file = source.startswith(_BEHIND), Path(source.removeprefix(_BEHIND))
        if not file.is_file():
            raise InputError(
                f"method {entry} is neither a method ({', '.join(NAMED)}) nor a prompt file nor an adapter file; "
                "make one with: certimed tune"
            )
        if learnt_schema(file) == ADAPTER_SCHEMA:
            found = Adaptation.load(file)
            behind = asked or found.denoiser is not None
            own = f"{_BEHIND if behind else ''}{found.name}"
            return cls(name or own, ADAPTED, adaptation=found, behind=behind, tuning=tuning)
        prompt = Prompt.load(file)
        if asked:
            raise InputError(f"{entry} puts a prompt behind the denoiser; only adapters can stand there")
        return cls(name or prompt.method, prompt.method, prompt, tuning=tuning)


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
        """Classes of a tuned prompt or adapter, if there is one."""
        learnt = [one.prompt or one.adaptation for one in self.entries]
        return next((one.class_names for one in learnt if one is not None), None)

    @property
    def adapters(self) -> dict[str, str]:
        """The digest of every adapter by the name of its method."""
        return {one.name: one.adaptation.identity for one in self.entries if one.adaptation is not None}

    @property
    def denoised(self) -> bool:
        """Whether a method stands behind the denoiser."""
        return any(one.behind for one in self.entries)

    @property
    def tuned_on(self) -> frozenset[str]:
        """Content ids of all images a prompt or an adapter was tuned on."""
        learnt = [one.prompt or one.adaptation for one in self.entries]
        return frozenset(item for one in learnt if one is not None for item in one.tuned_on)

    def adapted(self, model: Any, class_names: Sequence[str], task: str, denoiser: str | None) -> dict[str, Any]:
        """The adapted models by the name of their method.

        Args:
            model: the frozen one.
            class_names: of the run.
            task: ``"classes"`` or ``"masks"``.
            denoiser: identity of the run's denoiser.

        Raises:
            InputError: an adapter of another model, task, class list or denoiser.
        """
        made: dict[str, Any] = {}
        for one in self.entries:
            if (learnt := one.adaptation) is None:
                continue
            if learnt.task != task:
                raise InputError(f"the adapter of method {one.name} was tuned for {learnt.task}, this run has {task}")
            if learnt.denoiser not in (None, denoiser):
                raise InputError(
                    f"the adapter of method {one.name} was tuned behind a denoiser (identity "
                    f"{str(learnt.denoiser)[:12]}...) that this run does not have; name it with --denoiser"
                )
            learnt.check(model, class_names)
            made[one.name] = learnt.apply(model)
        return made

    def scored(self, model: Any, adapted: Mapping[str, Any]) -> list[Method]:
        """Methods of a model that reads no prompt: "plain", "denoised" (behind a denoiser), and adapted ones."""
        made: list[Method] = []
        for one in self.entries:
            if one.adaptation is not None:
                made.append(adapted_method(one.name, one.adaptation, model, adapted[one.name], model.num_classes))
            elif one.kind in (PLAIN, DENOISED):
                made.append(Scores(one.name, model.num_classes, stream=one.kind))
            else:
                raise InputError(
                    f"method {one.name} needs a model that reads prompts; this one serves {PLAIN}, {DENOISED} and "
                    "adapter files"
                )
        return made

    def methods(
        self,
        vlm: VisionLanguageModel,
        class_names: Sequence[str],
        templates: Sequence[str],
        sigma: float,
        adapted: Mapping[str, Any] | None = None,
    ) -> list[Method]:
        """Methods of a comparison; baseline and learnt methods share the template.

        Args:
            adapted: what :meth:`adapted` gave.
        """
        made: dict[str, Method] = {}
        for one in self.entries:
            if one.adaptation is not None:
                own = (adapted or {})[one.name]
                made[one.name] = adapted_method(one.name, one.adaptation, vlm, own, len(class_names))
            elif one.kind == TEST_TIME:
                text, tuning = zero_shot_features(vlm, class_names, templates), one.tuning
                captions = (list(templates), list(class_names))
                made[one.name] = TestTimeLora(
                    one.name, vlm, text, captions, copies=tuning.copies, steps=tuning.steps, lr=tuning.lr
                )
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
            if one.adaptation is not None or one.kind == TEST_TIME:
                continue
            for group in groups:
                if group[0].tuning == one.tuning and all(other.kind != one.kind for other in group):
                    group.append(one)
                    break
            else:
                groups.append([one])
        return groups


def words_before_name(template: str) -> str:
    """Words of a template before the class name: where a learnable context starts from."""
    words = template.partition("{}")[0].strip()
    if not words:
        raise InputError(
            f"the template {template!r} has no words before the class name to start a context from; "
            "give an initial context"
        )
    return words
