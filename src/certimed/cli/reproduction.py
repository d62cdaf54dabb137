"""The work behind ``certimed reproduce promptsmooth``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from certimed.budgets import as_budget
from certimed.classifiers import load_prompted
from certimed.cli import classify, inputs, tuning
from certimed.cli.ablation import Ablation, Entry
from certimed.cli.console import out, printable
from certimed.cli.prompting import Prompting
from certimed.data import Dataset, class_balanced, few_shot_indices, overlap
from certimed.errors import InputError
from certimed.metrics import ClassificationSummary, summarise
from certimed.presets import (
    PROTOCOL,
    SWEEPS,
    ClassificationPreset,
    Parts,
    Protocol,
    classification_preset,
    expected_layout,
    model_spec,
    open_parts,
)
from certimed.prompts import METHOD_NAMES, Prompt
from certimed.report.tables import AccuracySummaries, accuracy_latex, accuracy_rows, csv_text
from certimed.runs import CERTIFIED, ClassRecord, RunFolder
from certimed.vlm import VisionLanguageModel

DEFAULT_METHODS = ("none", "few-shot", "zero-shot", "both")
_OFFERED = tuple(name for name in METHOD_NAMES if name != "denoised")
_SWEPT = {"shots": "few-shot", "context": "few-shot", "steps": "zero-shot", "copies": "zero-shot"}
_FROZEN = ("zero-shot", "both", "steps", "copies")
_POOL_IMAGES = 128
_LEGEND = (
    "certified accuracy (%) at radius r, below it the 95 % interval over images. r: L2 in [0, 1] units of the model "
    "input. *: prompt tuned on the test image itself, so the certificate holds for the prompt frozen at that image."
)


@dataclass(frozen=True)
class Plan:
    """A reproduction, checked.

    Attributes:
        preset: data set.
        spec: model to load.
        root, folder: data and results.
        protocol: the published settings with what the user changed.
        images: test images to certify.
        methods: by name; empty in a sweep.
        sweep: what is varied, or None.
        values: its values.
        baseline_template: of method "none".
        budget: instead of the protocol's fixed n, or None.
        allow_code: consent to run the code of a ``python:`` model.
    """

    preset: ClassificationPreset
    spec: str
    root: Path
    folder: Path
    protocol: Protocol
    images: int
    methods: tuple[str, ...]
    sweep: str | None
    values: tuple[int, ...]
    baseline_template: str
    device: str
    allow_code: bool = False
    budget: str | None = None


def plan(
    *,
    dataset: str,
    model: str,
    data_root: Path,
    out: Path,
    sigmas: tuple[float, ...] | None = None,
    prompts: str | None = None,
    sweep: str | None = None,
    values: tuple[float, ...] | None = None,
    baseline_template: str = "same",
    device: str = "cpu",
    allow_code: bool = False,
    limit: int | None = None,
    budget: str | None = None,
    **changes: int | str | None,
) -> Plan:
    """Check everything that can be checked before data or model are touched; ``changes`` go into the protocol."""
    preset = classification_preset(dataset)
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if sigmas is not None:
        if len(set(sigmas)) != len(sigmas):
            raise InputError(f"--sigma {','.join(map(str, sigmas))} repeats a level; name each once")
        given["sigmas"] = sigmas
    protocol = replace(PROTOCOL, **given)
    if sweep is not None:
        inputs.one_of("--sweep", sweep, tuple(SWEEPS))
        if prompts is not None:
            raise InputError(f"--sweep {sweep} compares settings of {_SWEPT[sweep]}; leave out --prompts")
    elif values is not None:
        raise InputError("--values belongs to a sweep; add e.g. --sweep shots")
    names = () if sweep else tuple(part.strip() for part in (prompts or ",".join(DEFAULT_METHODS)).split(","))
    for name in names:
        inputs.one_of("--prompts", name, _OFFERED)
    template = {"same": preset.template, "published": preset.published_template}.get(
        baseline_template, baseline_template
    )
    return Plan(
        preset=preset,
        spec=model_spec(model, preset),
        root=data_root,
        folder=out,
        protocol=protocol,
        images=limit or (protocol.ablation_images if sweep else protocol.test_images),
        methods=names,
        sweep=sweep,
        values=_swept_values(sweep, values),
        baseline_template=template,
        device=device,
        allow_code=allow_code,
        budget=None if budget is None else str(as_budget(budget, given.get("n"))),
    )


def _swept_values(sweep: str | None, values: tuple[float, ...] | None) -> tuple[int, ...]:
    if sweep is None:
        return ()
    if values is None:
        return SWEEPS[sweep]
    if any(value != int(value) or value < 1 for value in values):
        raise InputError(f"--values {','.join(f'{v:g}' for v in values)} must be whole numbers from 1 on")
    return tuple(int(value) for value in values)


def run(work: Plan) -> int:
    """Tune, certify at every sigma, write and print the table.

    Returns:
        number of failed images, the largest over the sigmas.
    """
    parts = open_parts(work.preset, work.root)
    test = class_balanced(parts.test, work.images, work.protocol.seed)
    vlm = load_prompted(work.spec, work.device, allow_code=work.allow_code)
    _announce(work, parts, test, vlm)
    job = classify.Job(
        vlm, work.preset.class_names, (work.baseline_template,), _prompting(work, parts, test, vlm), test
    )
    summaries: dict[tuple[float, str], ClassificationSummary] = {}
    failures = 0
    for sigma in work.protocol.sigmas:
        records = _certify(work, job, sigma)
        failed = sum(record.status != CERTIFIED for record in records)
        failures = max(failures, failed)
        for name in job.prompting.names:
            summaries[sigma, name] = _summary(records, name, failed, work.protocol.radii, sigma)
    _write(work, summaries)
    _print(summaries)
    out.print(f"table.csv, table.tex and a run folder for each sigma: {printable(str(work.folder))}", highlight=False)
    return failures


def _announce(work: Plan, parts: Parts, test: Dataset, vlm: VisionLanguageModel) -> None:
    spent = 0 if parts.train is None else len(parts.train)
    out.print(
        f"{work.preset.title}: {len(test)} of {len(parts.test)} test images, class-balanced (seed "
        f"{work.protocol.seed}); {spent} training images. {printable(vlm.name)}, input "
        f"{'x'.join(map(str, vlm.input_shape))}.",
        highlight=False,
    )
    for note in work.preset.notes:
        out.print(f"note: {note}", style="dim", highlight=False)
    if len(test) < work.images:
        out.print(f"note: the protocol asks for {work.images} test images", style="dim", highlight=False)


def _prompting(work: Plan, parts: Parts, test: Dataset, vlm: VisionLanguageModel) -> Prompting:
    """The methods, with the prompts they need tuned (or read back from an earlier start of the same run)."""
    protocol = work.protocol
    base = Prompting(
        names=work.methods or ("none",),
        initial_context=work.preset.initial_context,
        copies=protocol.copies,
        steps=protocol.steps,
        lr=protocol.lr,
    )
    tuner = _Tuner(work, parts, test, vlm)
    if work.sweep is None:
        needs = set(work.methods)
        few_shot = tuner.few_shot(protocol.shots, protocol.context) if needs & {"few-shot", "both"} else None
        return replace(base, few_shot=few_shot, pool=tuner.pool() if "pool" in needs else None)
    entries = [Entry("none", "none", base)]
    for value in work.values:
        name = f"{work.sweep} {value}"
        if work.sweep == "shots":
            made = replace(base, few_shot=tuner.few_shot(value, protocol.context))
        elif work.sweep == "context":
            made = replace(base, few_shot=tuner.few_shot(protocol.shots, value))
        elif work.sweep == "steps":
            made = replace(base, steps=value)
        else:
            made = replace(base, copies=value)
        entries.append(Entry(name, _SWEPT[work.sweep], made))
    return Ablation.of(entries)


@dataclass(frozen=True)
class _Tuner:
    """Tunes on the training part, never on a test image, and keeps prompt files for the next start."""

    work: Plan
    parts: Parts
    test: Dataset
    vlm: VisionLanguageModel

    def few_shot(self, shots: int, context: int) -> Prompt:
        how = self._how(shots, context)
        path = self.work.folder / f"few-shot-{shots}-shots-{context}-tokens.safetensors"
        wanted = {"shots": shots, "seed": how.seed, "sigmas": list(how.sigmas)}
        recipe = {"name": how.recipe, "epochs": how.epochs, "initial_context": context}
        if path.exists():
            return self._read_back(path, wanted, recipe)
        train = self._train()
        self._refuse_overlap(train, few_shot_indices(train, shots, how.seed))
        return self._kept(tuning.learn_few_shot(self.vlm, train, self.work.preset.class_names, how), path)

    def pool(self) -> Prompt:
        how = replace(self._how(self.work.protocol.shots, 1), context=self.work.preset.initial_context)
        path = self.work.folder / "pool.safetensors"
        if path.exists():
            levels = [sigma for sigma in how.sigmas if sigma > 0]
            return self._read_back(path, {"seed": how.seed, "sigmas": levels}, {})
        train = class_balanced(self._train(), _POOL_IMAGES, how.seed)
        self._refuse_overlap(train, range(len(train)))
        return self._kept(tuning.learn_pool(self.vlm, train, self.work.preset.class_names, how), path)

    def _how(self, shots: int, context: int) -> tuning.Tuning:
        protocol = self.work.protocol
        return tuning.Tuning(
            sigmas=protocol.tuning_sigmas,
            shots=shots,
            epochs=protocol.epochs,
            recipe=protocol.recipe,
            context=context,
            per_class=False,
            position="end",
            held_out=0,
            early_stop=None,
            seed=protocol.seed,
            batch_size=protocol.batch_size,
        )

    def _train(self) -> Dataset:
        """The training part without the patients of the test part."""
        train = self.parts.train
        if train is None:
            raise InputError(
                f"--data-root {self.work.root} has no training images, which few-shot prompts and pools need: "
                f"{expected_layout(self.work.preset)}; or use --prompts none,zero-shot"
            )
        tested = {group for group in self.parts.test.groups if group is not None}
        return train.subset(index for index, group in enumerate(train.groups) if group not in tested)

    def _refuse_overlap(self, train: Dataset, drawn: Sequence[int]) -> None:
        shared = overlap(train.subset(drawn), self.test)
        if shared:
            raise InputError(
                f"{len(shared)} images are both tuned on and certified (the first is {shared[0][0]} in training and "
                f"{shared[0][1]} in testing); take them out of one of the two parts of {self.work.root}"
            )

    def _kept(self, prompt: Prompt, path: Path) -> Prompt:
        self.work.folder.mkdir(parents=True, exist_ok=True)
        prompt.save(path)
        return prompt

    def _read_back(self, path: Path, wanted: dict[str, Any], recipe: dict[str, Any]) -> Prompt:
        prompt = Prompt.load(path)
        prompt.check(self.vlm, self.work.preset.class_names)
        found = json.loads(json.dumps(prompt.metadata()))
        for place, expected in ((found, wanted), (found["recipe"], recipe)):
            for name, value in expected.items():
                if place.get(name) != value:
                    raise InputError(
                        f"{path} was tuned with {name} {place.get(name)} and {value} is asked for; "
                        "choose another --out, or delete the file"
                    )
        return prompt


def _certify(work: Plan, job: classify.Job, sigma: float) -> list[ClassRecord]:
    """One run folder a sigma, gone on with where it exists."""
    protocol = work.protocol
    settings = classify.Settings(
        sigma=sigma,
        n0=protocol.n0,
        budget=as_budget(work.budget, None if work.budget else protocol.n),
        alpha=protocol.alpha,
        bound="one-sided",
        seed=protocol.seed,
        batch_size=protocol.batch_size,
    ).checked()
    comparison = job.comparison(sigma)
    folder = work.folder / f"sigma-{sigma:g}"
    about = classify.manifest(job, comparison, settings) | {"preset": json.loads(json.dumps(asdict(work.preset)))}
    with RunFolder.create_or_resume(folder, about) as target:
        classify.certify(job, comparison, settings, target)
        return list(target.records())


def _summary(
    records: Sequence[ClassRecord], method: str, failed: int, radii: tuple[float, ...], sigma: float
) -> ClassificationSummary:
    """As published: divided by all test images, so a failed one counts as not certified."""
    done = [record for record in records if record.status == CERTIFIED]
    if not done:
        raise InputError(f"every image failed at sigma {sigma:g} (the first: {records[0].reason})")
    return summarise(
        [record.certificates[method] for record in done],
        [record.label for record in done if record.label is not None],
        [record.clean[method] for record in done],
        radii=radii,
        failed=failed,
    )


def _write(work: Plan, summaries: AccuracySummaries) -> None:
    first = next(iter(summaries.values()))
    caption = (
        f"Certified accuracy (%) on {work.preset.title}, {first.images} test images, model {work.spec}, "
        f"{_samples(work, summaries)}, alpha = {work.protocol.alpha:g}; 95 % intervals over images in small."
    )
    marks = {name: r"$^{*}$" for _, name in summaries if _is_frozen(name)}
    if marks:
        caption += " * prompt frozen at the test image: the certificate does not cover the tuning."
    label = f"tab:{work.preset.name}"
    (work.folder / "table.csv").write_text(csv_text(accuracy_rows(summaries)), encoding="utf-8")
    latex = accuracy_latex(summaries, caption=caption, label=label, marks=marks)
    (work.folder / "table.tex").write_text(latex, encoding="utf-8")


def _samples(work: Plan, summaries: AccuracySummaries) -> str:
    """How many samples an image got, for a caption."""
    if work.budget is None:
        return f"n = {work.protocol.n}"
    mean = sum(summary.mean_samples for summary in summaries.values()) / len(summaries)
    return f"budget {work.budget} (mean n = {mean:.0f})"


def _print(summaries: AccuracySummaries) -> None:
    """Methods by radii, a block a sigma; radii beyond anything certified are left out."""
    every = list(summaries.values())
    largest = max((r for s in every for r, share in zip(s.radii, s.certified_share) if share), default=0.0)
    shown = [index for index, radius in enumerate(every[0].radii) if radius <= largest or index == 0]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("sigma", justify="right")
    table.add_column("method", no_wrap=True)
    table.add_column("clean", justify="right")
    for index in shown:
        table.add_column(f"r>{every[0].radii[index]:g}", justify="right", no_wrap=True)
    previous: float | None = None
    for (sigma, method), summary in summaries.items():
        if previous not in (None, sigma):
            table.add_section()
        previous = sigma
        curve, bounds = summary.certified_accuracy or (), summary.intervals or ()
        cells = [f"{100 * curve[i]:.1f}\n{100 * bounds[i][0]:.0f}-{100 * bounds[i][1]:.0f}" for i in shown]
        clean = "-" if summary.clean_accuracy is None else f"{100 * summary.clean_accuracy:.1f}"
        table.add_row(f"{sigma:g}", method + ("*" if _is_frozen(method) else ""), clean, *cells)
    out.print(table)
    out.print(_LEGEND, style="dim", highlight=False)


def _is_frozen(name: str) -> bool:
    return name.partition(" ")[0] in _FROZEN
