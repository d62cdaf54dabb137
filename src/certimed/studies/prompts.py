"""PromptSmooth (Hussein et al., MICCAI 2024): prompts learnt under noise, certified on a published data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from certimed.budgets import as_budget
from certimed.classifiers import load_prompted
from certimed.data import Dataset, class_balanced
from certimed.engine import PLAIN
from certimed.errors import InputError
from certimed.prompts import METHOD_NAMES, Prompt, TuningPlan, TuningProgress, tune_prompt
from certimed.runs import RunSpec, Silent, Tuning, Watcher
from certimed.studies.layout import Parts, expected_layout, open_parts
from certimed.studies.prompt_presets import (
    PROTOCOL,
    SWEEPS,
    ClassificationPreset,
    Protocol,
    classification_preset,
    model_spec,
)
from certimed.studies.study import Study, run_study
from certimed.vlm import VisionLanguageModel

DEFAULT_METHODS = (PLAIN, "few-shot", "zero-shot", "both")
OFFERED = tuple(name for name in METHOD_NAMES if name != "denoised")
_POOL_IMAGES = 128


def promptsmooth(
    dataset: str,
    model: str,
    data: str | Path,
    out: str | Path,
    *,
    protocol: Protocol = PROTOCOL,
    methods: Sequence[str] | None = None,
    sweep: str | None = None,
    values: Sequence[float] | None = None,
    images: int | None = None,
    budget: str | None = None,
    template: str = "same",
    device: str = "auto",
    workers: int = 1,
    allow_code: bool = False,
    watcher: Watcher | None = None,
    progress: Callable[[TuningProgress], None] | None = None,
) -> Study:
    """Tune on the training part, certify the test part at every sigma, write prompts, run folders and tables.

    Called again with the same arguments, it goes on where it stopped.

    Args:
        dataset: name of a preset, see :func:`certimed.studies.classification_preset`.
        model: name out of :data:`certimed.studies.MODELS`, or any vision-language model.
        data: folder of the data set.
        out: folder of the study.
        protocol: the published settings, or what was changed of them with :func:`dataclasses.replace`.
        methods: out of :data:`OFFERED`; default: plain, few-shot, zero-shot, both.
        sweep: instead of methods, a setting that is varied: shots or context (few-shot), steps or copies (zero-shot).
            All values are certified in one run, on the same noise, beside "plain".
        values: of the sweep; default: the published ones.
        images: test images; default: the protocol's.
        budget: instead of the protocol's fixed number of samples.
        template: of the method "plain": ``"same"`` sentence as learnt methods start from, ``"published"``, or a text
            with ``{}``.
        device: where the model runs.
        workers: processes of this machine.
        allow_code: consent to run the code of a ``python:`` model.
        watcher: told what happens, see :class:`certimed.runs.Watcher`.
        progress: told how tuning gets on.

    Raises:
        InputError: a setting that is unknown, a data set in no known layout, an image that is both tuned on and
            certified, or a study folder that was made with other settings.
    """
    preset = classification_preset(dataset)
    rows = _rows(methods, sweep, values, protocol)
    if len(set(protocol.sigmas)) != len(protocol.sigmas):
        raise InputError(f"sigmas {','.join(map(str, protocol.sigmas))} repeat a level; name each once")
    named, folder, watch = model_spec(model, preset), Path(out), watcher or Silent()
    samples = str(as_budget(budget)) if budget is not None else protocol.n
    count = images or (protocol.ablation_images if sweep else protocol.test_images)
    parts = open_parts(preset, Path(data))
    test = class_balanced(parts.test, count, protocol.seed)
    vlm = load_prompted(named, device, allow_code=allow_code)
    _announce(watch, preset, parts, test, vlm, protocol.seed, count)
    tuner = _Tuner(preset, protocol, Path(data), folder, parts, test, vlm, progress)
    first = {"same": preset.template, "published": preset.published_template}.get(template, template)
    spec = RunSpec(
        model=named,
        data=replace(parts.source, limit=count),
        methods=tuple(entry for row in rows for entry in row(tuner)),
        budget=samples,
        n0=protocol.n0,
        alpha=protocol.alpha,
        seed=protocol.seed,
        templates=(first,),
        tuning=Tuning(preset.initial_context, protocol.copies, protocol.steps, protocol.lr),
        device=device,
        batch_size=protocol.batch_size,
    )
    study = run_study(
        {f"sigma-{sigma:g}": spec.changed(sigma=sigma) for sigma in protocol.sigmas},
        folder,
        load=lambda one: one.load(allow_code=allow_code, model=vlm),
        radii=protocol.radii,
        workers=workers,
        allow_code=allow_code,
        watcher=watch,
    )
    study.write_tables(folder, caption=_caption(study, preset, spec), label=f"tab:{preset.name}")
    return study


# What one row of the table is made of: entries of RunSpec.methods, with the prompt file tuned where one is needed.
_Row = Callable[["_Tuner"], list[str]]


def _rows(
    methods: Sequence[str] | None, sweep: str | None, values: Sequence[float] | None, protocol: Protocol
) -> list[_Row]:
    if sweep is None:
        if values is not None:
            raise InputError("values belong to a sweep; name one, e.g. shots")
        return _method_rows(methods or DEFAULT_METHODS, protocol)
    if sweep not in SWEEPS:
        raise InputError(f"sweep {sweep} is unknown; use one of {', '.join(SWEEPS)}")
    if methods is not None:
        raise InputError(f"sweep {sweep} compares settings of one method; leave out the methods")
    chosen = SWEEPS[sweep] if values is None else values
    if any(value != int(value) or value < 1 for value in chosen) or len(set(chosen)) < len(chosen):
        listed = ",".join(f"{v:g}" for v in chosen)
        raise InputError(f"values {listed} must be whole numbers from 1 on, each named once")
    rows: list[_Row] = [lambda tuner: [PLAIN]]
    for value in map(int, chosen):
        name = f"{sweep} {value}"
        if sweep == "shots":
            rows.append(lambda tuner, name=name, v=value: [f"{name}={tuner.few_shot(v, protocol.context)}"])  # type: ignore[misc]
        elif sweep == "context":
            rows.append(lambda tuner, name=name, v=value: [f"{name}={tuner.few_shot(protocol.shots, v)}"])  # type: ignore[misc]
        else:
            rows.append(lambda tuner, name=name, v=value: [f"{name}=zero-shot:{sweep}={v}"])  # type: ignore[misc]
    return rows


def _method_rows(methods: Sequence[str], protocol: Protocol) -> list[_Row]:
    for name in methods:
        if name not in OFFERED:
            raise InputError(f"method {name} is unknown; use one of {', '.join(OFFERED)}")
    rows: list[_Row] = []
    for name in methods:
        if name == "pool":
            rows.append(lambda tuner: [str(tuner.pool())])
        elif name == "few-shot" or (name == "both" and "few-shot" not in methods):
            also = ["both"] if name == "both" else []
            rows.append(lambda tuner, also=also: [str(tuner.few_shot(protocol.shots, protocol.context)), *also])  # type: ignore[misc]
        else:
            rows.append(lambda tuner, name=name: [name])  # type: ignore[misc]
    return rows


def _announce(
    watch: Watcher,
    preset: ClassificationPreset,
    parts: Parts,
    test: Dataset,
    vlm: VisionLanguageModel,
    seed: int,
    wanted: int,
) -> None:
    watch.note(
        f"{preset.title}: {len(test)} of {len(parts.test)} test images, class-balanced (seed {seed}); "
        f"{len(parts.train or ())} training images. {vlm.name}, input {'x'.join(map(str, vlm.input_shape))}."
    )
    for note in preset.notes:
        watch.note(f"note: {note}")
    if len(test) < wanted:
        watch.note(f"note: the protocol asks for {wanted} test images")


def _caption(study: Study, preset: ClassificationPreset, spec: RunSpec) -> str:
    samples = f"n = {spec.cap}"
    if not spec.budget.startswith("fixed"):
        means = [one.accuracy(study.radii).mean_samples for one in study.series]
        samples = f"budget {spec.budget} (mean n = {sum(means) / len(means):.0f})"
    return (
        f"Certified accuracy (%) on {preset.title}, {study.series[0].images} test images, model {spec.model}, "
        f"{samples}, alpha = {spec.alpha:g}; 95 % intervals over images in small. *: prompt frozen at the test image, "
        "the certificate does not cover the tuning."
    )


@dataclass(frozen=True)
class _Tuner:
    """Tunes on the training part, never on a test image, and keeps prompt files for the next start."""

    preset: ClassificationPreset
    protocol: Protocol
    root: Path
    folder: Path
    parts: Parts
    test: Dataset
    vlm: VisionLanguageModel
    progress: Callable[[TuningProgress], None] | None

    def few_shot(self, shots: int, context: int) -> Path:
        plan = self._plan(shots, context)
        wanted = {"shots": shots, "seed": plan.seed, "sigmas": list(plan.sigmas)}
        recipe = {"name": plan.recipe, "epochs": plan.epochs, "initial_context": context}
        path = self.folder / f"few-shot-{shots}-shots-{context}-tokens.safetensors"
        return self._kept(path, plan, "few-shot", wanted, recipe)

    def pool(self) -> Path:
        plan = self._plan(self.protocol.shots, self.preset.initial_context)
        levels = [sigma for sigma in plan.sigmas if sigma > 0]
        return self._kept(self.folder / "pool.safetensors", plan, "pool", {"seed": plan.seed, "sigmas": levels}, {})

    def _plan(self, shots: int, context: int | str) -> TuningPlan:
        protocol = self.protocol
        return TuningPlan(
            sigmas=protocol.tuning_sigmas,
            shots=shots,
            epochs=protocol.epochs,
            recipe=protocol.recipe,
            context=context,
            seed=protocol.seed,
            batch_size=protocol.batch_size,
        )

    def _kept(self, path: Path, plan: TuningPlan, method: str, wanted: dict[str, Any], recipe: dict[str, Any]) -> Path:
        """The prompt's file, tuned anew or checked; absolute, as a request may be read anywhere."""
        names = self.preset.class_names
        if path.exists():
            prompt = Prompt.load(path)
            prompt.check(self.vlm, names)
            _check_settings(path, prompt, wanted, recipe)
        else:
            train = self._train()
            if method == "pool":
                train = class_balanced(train, _POOL_IMAGES, plan.seed)
            prompt = tune_prompt(self.vlm, train, names, plan, method=method, test=self.test, progress=self.progress)
            path.parent.mkdir(parents=True, exist_ok=True)
            prompt.save(path)
        return path.resolve()

    def _train(self) -> Dataset:
        """The training part without the patients of the test part."""
        train = self.parts.train
        if train is None:
            raise InputError(
                f"the data folder {self.root} has no training images, which few-shot prompts and pools need: "
                f"{expected_layout(self.preset)}; or use the methods plain,zero-shot"
            )
        tested = {group for group in self.parts.test.groups if group is not None}
        return train.subset(index for index, group in enumerate(train.groups) if group not in tested)


def _check_settings(path: Path, prompt: Prompt, wanted: dict[str, Any], recipe: dict[str, Any]) -> None:
    found = json.loads(json.dumps(prompt.metadata()))
    for place, expected in ((found, wanted), (found["recipe"], recipe)):
        for name, value in expected.items():
            if place.get(name) != value:
                raise InputError(
                    f"{path} was tuned with {name} {place.get(name)} and {value} is asked for; "
                    "choose another folder, or delete the file"
                )
