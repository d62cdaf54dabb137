"""The classification job behind ``certify`` and ``demo``: load, certify into a run folder, show the table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from certimed import __version__
from certimed.acceleration import FLOAT32, Acceleration, arithmetic
from certimed.assets import demo_prompts
from certimed.budgets import Budget, as_budget
from certimed.certificates import MODEL_INPUT, NATIVE, SPACES, ClassCertificate, collect_provenance
from certimed.classification import check_samples
from certimed.classifiers import DENOISED, MODEL, ClassificationModel, classifier_methods, load_classifier
from certimed.cli import inputs
from certimed.cli.console import advance, err, out, printable, sample_progress
from certimed.cli.prompting import Prompting
from certimed.cli.tables import print_accuracy, print_native
from certimed.data import Dataset, MedicalImage, class_balanced
from certimed.denoising import ModuleDenoiser, OneStepDenoiser, load_denoiser
from certimed.errors import ImageError, InputError
from certimed.noise import item_id as content_id
from certimed.prompts import PromptComparison
from certimed.runs import FAILED, Record, RunFolder, certify_dataset, data_section, remaining
from certimed.sampling import check_sigma
from certimed.statistics import BOUND_NAMES
from certimed.throughput import AUTO, check_batch_size, probe_batch_size, settled
from certimed.usercode import is_user_code
from certimed.vlm import NativeModel, VisionLanguageModel

DEFAULT_TEMPLATE = "an image of {}."


@dataclass(frozen=True)
class Settings:
    """Statistical settings of a run; ``budget`` is given as ``certify`` takes it, and kept spelt out."""

    sigma: float
    n0: int
    budget: Budget | int | str | None
    alpha: float
    bound: str
    seed: int
    batch_size: int | str | None
    space: str = MODEL_INPUT
    acceleration: Acceleration = FLOAT32

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", str(as_budget(self.budget)))

    @property
    def cap(self) -> int:
        """Most estimation samples an image can cost."""
        return as_budget(self.budget).cap

    def checked(self) -> Settings:
        """Refuse impossible settings before any work."""
        check_sigma(self.sigma)
        check_samples(n0=self.n0, n=self.cap, alpha=self.alpha)
        inputs.one_of("--bound", self.bound, BOUND_NAMES)
        as_budget(self.budget).start(np.array([self.n0, 0]), self.alpha, self.sigma, self.bound)
        if self.space not in SPACES:
            raise InputError(f"space={self.space!r} is unknown; use one of {', '.join(SPACES)}")
        check_batch_size(self.batch_size)
        return self

    @classmethod
    def recorded(cls, manifest: Mapping[str, Any]) -> Settings:
        """The settings in a manifest; raises KeyError, TypeError or InputError where they are none."""
        found = {name: manifest["settings"][name] for name in cls.__dataclass_fields__}
        found["acceleration"] = Acceleration(**found["acceleration"])
        if found["batch_size"] == AUTO:
            found["batch_size"] = int(manifest["local"]["batch_size"])
        return cls(**found).checked()


@dataclass(frozen=True)
class Job:
    """A loaded model, its classes and prompts (methods, for a plain classifier), and a data set."""

    model: VisionLanguageModel | ClassificationModel
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    prompting: Prompting
    dataset: Dataset
    denoiser: OneStepDenoiser | ModuleDenoiser | None = None

    def comparison(
        self, sigma: float, space: str = MODEL_INPUT, acceleration: Acceleration | None = None
    ) -> PromptComparison:
        """The prompt methods at one noise level; refuses templates and prompts that do not fit the model.

        At native resolution the preparation is inside the certified model, and a denoiser in front of it.
        """
        if isinstance(self.model, ClassificationModel):
            methods = classifier_methods(self.model.num_classes, self.prompting.names)
        else:
            methods = self.prompting.methods(self.model, self.class_names, self.templates, sigma)
        model = NativeModel(self.model) if space == NATIVE else self.model
        if self.denoiser is None:
            return PromptComparison(model, methods, sigma, acceleration=acceleration)
        return PromptComparison(
            model,
            methods,
            sigma,
            acceleration=acceleration,
            denoiser=self.denoiser.at(sigma).eval(),
        )


def prepare(
    *,
    model: str,
    source: inputs.Source,
    templates: Sequence[str] | None,
    prompting: Prompting,
    limit: int | None,
    seed: int,
    device: str,
    denoiser: str | None = None,
    allow_code: bool = False,
    size: tuple[int, int] | None = None,
) -> Job:
    """Check the data, then load the model, and the denoiser of the method "denoised"."""
    if (denoiser is None) == ("denoised" in prompting.names):
        raise InputError("--denoiser and the prompt method denoised go together; give both, or neither")
    loaded = load_classifier(model, device, allow_code=allow_code, size=size) if is_user_code(model) else None
    if isinstance(loaded, ClassificationModel):
        return _classifier_job(loaded, source, templates, prompting, limit, seed, denoiser)
    dataset = source.open()
    known = demo_prompts() if model == "demo" else None
    fallback = prompting.class_names or (tuple(known["classes"].values()) if known else None)
    names = class_names(dataset, source.classes, fallback)
    dataset = _limited(dataset, limit, seed)
    front = None if denoiser is None else load_denoiser(denoiser, device)
    texts = tuple(templates or (known["templates"] if known else (DEFAULT_TEMPLATE,)))
    if loaded is None:
        loaded = load_classifier(model, device, size=size)
    return Job(loaded, names, texts, prompting, dataset, front)


def _classifier_job(
    model: ClassificationModel,
    source: inputs.Source,
    templates: Sequence[str] | None,
    prompting: Prompting,
    limit: int | None,
    seed: int,
    denoiser: str | None,
) -> Job:
    """The job of a plain classifier: no prompts, and class names in the order of its scores."""
    if templates or not set(prompting.names) <= {"none", DENOISED}:
        raise InputError(
            f"{model.name} is a plain classifier, which has no text to prompt; leave out --template and --prompts "
            "(but --prompts none,denoised with --denoiser)"
        )
    dataset = (source if source.classes else replace(source, classes=model.class_names)).open()
    numbered = tuple(f"class {index}" for index in range(model.num_classes))
    names = class_names(dataset, source.classes, model.class_names or numbered)
    if len(names) != model.num_classes or model.class_names not in (None, names):
        own = f"{model.num_classes} scores" + (f" ({', '.join(model.class_names)})" if model.class_names else "")
        raise InputError(
            f"{model.name} returns {own} and the images are of {len(names)} classes ({', '.join(names)}); name all "
            "classes in the order of the scores with --classes"
        )
    front = None if denoiser is None else load_denoiser(denoiser, model.device)
    methods = tuple(MODEL if name == "none" else name for name in prompting.names)
    return Job(model, names, (), replace(prompting, names=methods), _limited(dataset, limit, seed), front)


def _limited(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    if limit is None or limit >= len(dataset):
        return dataset
    return class_balanced(dataset, limit, seed) if dataset.is_labelled else dataset.subset(range(limit))


def denoiser_identity(denoiser: OneStepDenoiser | ModuleDenoiser) -> str:
    """Hex SHA-256 over a denoiser's settings and weights."""
    return denoiser.identity


def class_names(
    dataset: Dataset, entries: Sequence[str] | None, fallback: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Names that go into the captions: the data set's; for unlabelled images ``--classes``, or what is known anyway."""
    if dataset.class_names is not None:
        return dataset.class_names
    if entries is not None:
        return tuple(entry.partition("=")[2].strip() or entry for entry in entries)
    if fallback is not None:
        return fallback
    raise InputError("the data set names no classes; give them with --classes, e.g. --classes 'covid,normal'")


def certify(
    job: Job, comparison: PromptComparison, settings: Settings, target: RunFolder, *, retry_failed: bool = False
) -> None:
    """Certify the unfinished images of the job with a progress bar."""
    most, spent = len({method.stream for method in comparison.methods}) * (settings.n0 + settings.cap), 0
    waiting = len(remaining(job.dataset, target, retry_failed=retry_failed))
    with sample_progress(waiting, most) as (bar, task):

        def count(done: int) -> None:
            nonlocal spent
            spent += done
            advance(bar, task, done)

        def certifier(image: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
            return certify_image(job, comparison, settings, image, count)

        announce = _announcer(bar, task)
        for record in certify_dataset(job.dataset, certifier, target, retry_failed=retry_failed, announce=announce):
            say_if_failed(record)
            bar.advance(task, most - spent)  # type: ignore[arg-type]
            spent = 0


def say_if_failed(record: Record) -> bool:
    """Print one line about an image that failed; returns whether it did."""
    if record.status != FAILED:
        return False
    err.print(f"[red]failed[/] {printable(record.item)}: {printable(record.reason or '')}", highlight=False)
    return True


def certify_image(
    job: Job,
    comparison: PromptComparison,
    settings: Settings,
    image: MedicalImage,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
    """Clean predictions and certificates of one image by method; refuses an image a prompt was tuned on."""
    pixels = torch.from_numpy(image.pixels).to(job.model.device)
    x = job.model.preprocess(pixels)
    if content_id(x) in job.prompting.tuned_on:
        raise ImageError(f"{image.id} was used to tune the prompt; a test image must not be")
    native = comparison.space == NATIVE
    results = comparison.run(
        pixels if native else x,
        n0=settings.n0,
        budget=settings.budget,
        alpha=settings.alpha,
        seed=settings.seed,
        item_id=image.id,
        batch_size=settled(settings.batch_size),
        bound=settings.bound,
        intensity=image.intensity,
        progress=progress,
    )
    clean = {name: result.clean_prediction for name, result in results.items()}
    geometry = None if native else job.model.geometry(tuple(pixels.shape))
    return clean, {name: result.certificate.with_geometry(geometry) for name, result in results.items()}


def probe(job: Job, comparison: PromptComparison) -> int:
    """The batch size that pays for the slowest of the encoders, on one of the images."""
    image = torch.full(job.model.input_shape, 0.5)
    if comparison.space == NATIVE:
        image = torch.from_numpy(job.dataset.load(0).pixels)
    encoder = comparison.encoders.get("denoised", comparison.encoders["plain"])
    return probe_batch_size(encoder, image.to(job.model.device), sigma=comparison.sigma)


def _announcer(bar: object, task: int) -> Callable[[str], None]:
    def announce(item: str) -> None:
        bar.update(task, description=printable(item, 32))  # type: ignore[attr-defined]

    return announce


def manifest(
    job: Job, comparison: PromptComparison, settings: Settings, data: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Everything needed to redo the run; ``data`` is its part about the data set where it is known already."""
    return {
        "task": "classify",
        "certimed": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": sys.argv[1:],
        "settings": asdict(settings),
        "model": {"name": job.model.name, "identity": job.model.identity, "input_shape": list(job.model.input_shape)},
        "classes": list(job.class_names),
        "templates": list(job.templates),
        "prompts": job.prompting.record(),
        "model_ids": comparison.model_ids(),
        "denoiser": None if job.denoiser is None else denoiser_identity(job.denoiser),
        "data": data_section(job.dataset) if data is None else data,
        "provenance": collect_provenance(
            str(job.model.device),
            dtype=arithmetic(job.model, settings.acceleration),
            model=job.model.identity,
        ).to_dict(),
    }


def say_where(target: RunFolder, certified: int, failed: int) -> None:
    """Print how many images there are, where the run is, and the digest that shows any later change."""
    out.print(f"{certified} certified, {failed} failed; written to {printable(str(target.path))}", soft_wrap=True)
    out.print(f"digest {target.digest()}", style="dim", highlight=False, soft_wrap=True)


def report(job: Job, settings: Settings, target: RunFolder) -> int:
    """Print the table of the run and where its files are; returns the number of failed images."""
    records = list(target.records())
    failed = sum(record.status == FAILED for record in records)
    if failed < len(records):
        print_accuracy({(settings.sigma, name): records for name in job.prompting.names})
        print_native(records, job.prompting.names[0])
    say_where(target, len(records) - failed, failed)
    return failed
