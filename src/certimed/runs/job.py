"""A run, loaded: data, model, methods and target; certifies one image at a time into records."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certimed import __version__
from certimed.budgets import as_budget
from certimed.certificates import NATIVE, MaskCertificate, collect_provenance
from certimed.data import Dataset, MedicalImage
from certimed.engine import (
    DENOISED,
    PLAIN,
    Engine,
    Origin,
    Progress,
    Result,
    arithmetic,
    noisy_batches,
)
from certimed.engine.throughput import AUTO, probe_batch_size
from certimed.errors import ImageError, InputError, ModelError
from certimed.measurements import Measurement
from certimed.metrics import MaskScores, mask_scores
from certimed.noise import NoiseKey, content_id
from certimed.operators import apply
from certimed.runs.binding import Binding
from certimed.runs.methods import MethodEntry, Prompting
from certimed.runs.prepared import Prepared
from certimed.runs.record import CERTIFIED, Record, arrays_name
from certimed.runs.targets import MaskTarget, MeasureTarget
from certimed.segmenters import SegmentationModel
from certimed.segmenters.native import mask_geometry, resized_truth
from certimed.targets import Classes, Interval, Pixels, winning_class

if TYPE_CHECKING:
    from certimed.runs.spec import RunSpec


NOISY_COPIES = 4
"""Single noisy copies whose scores are averaged as "noisy"."""


class Job(ABC):
    """What :meth:`RunSpec.load` gives.

    Attributes:
        spec: the request.
        dataset: the images.
        class_names: in the order of the scores.
        engine: streams and methods.
        target: of labels and masks: what is certified.
        entries: the methods as the manifest records them.
        tuned_on: content ids of the images that a prompt or an adapter was tuned on.
        binding: what is bound to each image, where a model needs more than its input.
    """

    binding: Binding | None = None

    def __init__(
        self,
        spec: RunSpec,
        dataset: Dataset,
        class_names: Sequence[str],
        engine: Engine,
        target: Classes | Pixels | None,
        model: Any,
        denoiser: nn.Module | None,
        prompting: Prompting,
    ) -> None:
        self.spec, self.dataset, self.class_names = spec, dataset, tuple(class_names)
        self.engine, self.target, self.model, self.denoiser = engine, target, model, denoiser
        identities, kinds, adapters = engine.identities(), prompting.kinds, prompting.adapters
        self.entries = tuple(
            MethodEntry(
                one.name, kinds.get(one.name, one.name), one.scope, identities[one.name], adapters.get(one.name)
            )
            for one in engine.methods
        )
        self.tuned_on = prompting.tuned_on
        self._batch_size = spec.batch_size

    @property
    def warnings(self) -> tuple[str, ...]:
        """What nothing says about the model and a person should decide, what its loader had to decide, and files that
        are left out."""
        left = self.dataset.ignored
        files = (f"{left} other file{'s' * (left > 1)} in {self.dataset.source} left out: no image of this data set",)
        parts = [part for part in (self.model, self.denoiser) if part is not None]
        said = [one for part in parts for name in ("warnings", "notes") for one in getattr(part, name, ())]
        return (*said, *(files if left else ()))

    @property
    def where(self) -> str:
        """The device, in words."""
        place = self.engine.device
        if place.type == "cuda":
            return f"{place} ({torch.cuda.get_device_name(place)})"
        threads = torch.get_num_threads()
        return f"the CPU ({threads} thread{'s' * (threads > 1)})" if place.type == "cpu" else str(place)

    @property
    def pixels(self) -> int | None:
        """Pixels of the first image that can be read, as it is certified; None where there is none."""
        for index in range(len(self.dataset)):
            with suppress(ImageError):
                return math.prod(self.prepare(self.dataset.load(index)).pixels.shape[1:])
        return None

    def refuse_tuned(self, item: str, x: Tensor) -> None:
        """Refuse an image, as the model sees it, that a prompt or an adapter was tuned on, with ImageError."""
        if content_id(x) in self.tuned_on:
            raise ImageError(f"{item} was used to tune the prompt or adapter; a test image must not be")

    @abstractmethod
    def prepare(self, image: MedicalImage) -> Prepared:
        """The image in the certified space; ImageError where it does not fit."""

    def clean_answer(self, prepared: Prepared) -> NDArray[Any] | None:
        """Of masks: the network's answer without noise; None of labels, whose clean class is in the record."""
        return None

    def scores(
        self, image: MedicalImage, prepared: Prepared, found: Mapping[str, Result[Any]], clean: NDArray[Any] | None
    ) -> dict[str, MaskScores]:
        """Scores against the truth, by the certificate's label; empty where a target has none.

        Args:
            clean: of :meth:`clean_answer`.
        """
        return {}

    def targets(self, image: MedicalImage, prepared: Prepared) -> list[Any]:
        """What is certified of an image; ImageError where the image does not have what that needs."""
        return [self.target]

    def engine_for(self, prepared: Prepared) -> Engine:
        """The engine, its models bound to one image where they need more than its pixels."""
        return self.engine if prepared.streams is None else self.engine.with_streams(prepared.streams)

    @abstractmethod
    def check_settings(self) -> None:
        """Refuse, before a run begins, what the first image that can be read shows to be impossible.

        Raises:
            InputError: e.g. a number of samples that can prove nothing over so many pixels.
        """

    def start_engine(self) -> None:
        """Export the models, where another engine than PyTorch runs them, for the first image that can be read.

        Raises:
            InputError: a model that cannot be exported. ModelError: one that the engine answers otherwise.
        """
        for index in range(len(self.dataset) if self.spec.speed.exports else 0):
            try:
                pixels = self.prepare(self.dataset.load(index)).pixels.to(self.engine.device)
            except ImageError:
                continue
            with torch.no_grad():
                for name in {method.stream for method in self.engine.methods}:
                    self.engine.streams[name](pixels.expand(2, *pixels.shape))
            return

    @property
    def batch_size(self) -> int | None:
        """Noisy copies a forward pass; an automatic one is probed on first use."""
        if self._batch_size == AUTO:
            prepared = self.prepare(self.dataset.load(0))
            streams = self.engine_for(prepared).streams
            stream = streams.get(DENOISED, streams[PLAIN])
            self._batch_size = probe_batch_size(stream, prepared.pixels.to(self.engine.device), self.engine.law)
        return self._batch_size  # type: ignore[return-value]

    def use_batch_size(self, size: int | None) -> None:
        """Settle the batch size, e.g. to what a resumed run has recorded."""
        self._batch_size = size

    def certify(self, image: MedicalImage, progress: Progress | None = None) -> Record:
        """The record of one image.

        Raises:
            ImageError: the image does not fit. ModelError: a model broke its contract.
        """
        prepared = self.prepare(image)
        before = set(self.engine.one_answer)
        found = self.engine_for(prepared).run(
            prepared.pixels,
            self.targets(image, prepared),
            as_budget(self.spec.budget),
            n0=self.spec.n0 or 0,
            alpha=self.spec.alpha,
            seed=self.spec.seed,
            item_id=image.id,
            batch_size=self.batch_size,
            origin=Origin(
                image.intensity, image.decoders, prepared.geometry, settings=prepared.settings, pixels=prepared.digest
            ),
            clean=not self.spec.segments,
            progress=progress,
        )
        checked = {name: one.to_dict() for name, one in self.engine.one_answer.items() if name not in before}
        certificates = {one.label: one for result in found.values() for one in result.certificates}
        clean = {} if self.spec.segments else {name: result.clean for name, result in found.items()}
        seen = self.clean_answer(prepared)
        scores = self.scores(image, prepared, found, seen)
        clean_pixels = () if seen is None else np.bincount(seen.ravel(), minlength=len(self.class_names)).tolist()
        return Record(
            item=image.id,
            status=CERTIFIED,
            label=image.label,
            group=image.group,
            clean=clean,
            certificates=certificates,
            scores=scores,
            intensity=image.intensity_record.to_json(),
            place=None if image.geometry is None else image.geometry.to_dict(),
            checks=checked,
            clean_pixels=tuple(clean_pixels),
        )

    def record(self, index: int, progress: Progress | None = None) -> Record:
        """The record of image number ``index``; errors of image, model and settings become a failed record."""
        item, begin = self.dataset.items[index], time.perf_counter()
        try:
            found = self.certify(self.dataset.load(index), progress)
        except (InputError, ModelError) as error:
            return Record.failed(
                item.id,
                str(error),
                label=item.label,
                group=item.group,
                seconds=time.perf_counter() - begin,
                structural=not isinstance(error, ImageError),
            )
        return replace(found, seconds=time.perf_counter() - begin)

    def redraw(self, item: str) -> dict[str, Any]:
        """The record of an image, certified again, as plain data; of masks with ``arrays`` by their place in the run.

        Raises:
            InputError: the data set holds no such image.
        """
        place = {name: index for index, name in enumerate(self.dataset.ids)}
        if item not in place:
            raise InputError(f"the data set holds no image {item!r:.120}")
        found = self.record(place[item])
        data: dict[str, Any] = json.loads(found.to_json())
        if self.spec.masks:
            every = [one for one in found.certificates.values() if isinstance(one, MaskCertificate)]
            data["arrays"] = {arrays_name(one.item, one.method, one.tau): one.claim.arrays() for one in every}
        return data

    def on(self, dataset: Dataset) -> Job:
        """The same job on another part of the data."""
        return self._with(dataset=dataset)

    def under(self, budget: str) -> Job:
        """The same job under another budget."""
        return self._with(spec=self.spec.changed(budget=budget))

    def pilot(self, budget: str, target: Pixels, **settings: Any) -> Job:
        """The same job with another target too, for its time only."""
        return self._with(spec=self.spec.changed(budget=budget, **settings), target=target)

    def _with(self, **parts: Any) -> Job:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **parts)
        return other

    def manifest(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Everything needed to redo the run, given its part about the data."""
        provenance = collect_provenance(
            str(self.engine.device),
            dtype=arithmetic(self.model, self.spec.speed),
            model=self.model.identity,
            libraries=self.engine.streams[PLAIN].libraries,
        )
        shape = getattr(self.model, "input_shape", None)
        return {
            "certimed": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "request": self.spec.to_dict(),
            "model": {
                "name": self.model.name,
                "identity": self.model.identity,
                "input_shape": None if shape is None else list(shape),
                "normalisation": getattr(self.model, "normalisation", None),
                "notes": list(getattr(self.model, "notes", ())),
            },
            "methods": [asdict(entry) for entry in self.entries],
            "denoiser": None if self.denoiser is None else self.denoiser.identity,
            "classes": list(self.class_names),
            "data": dict(data),
            "provenance": provenance.to_dict(),
        }


class ClassJob(Job):
    """Labels: a vision-language model with prompts, or any classifier."""

    def check_settings(self) -> None:
        """See :class:`Job`; a request for labels was checked when it was made."""

    def prepare(self, image: MedicalImage) -> Prepared:
        """See :class:`Job`."""
        pixels = torch.from_numpy(image.pixels).to(self.engine.device)
        x = self.model.preprocess(pixels)
        self.refuse_tuned(image.id, x)
        if self.binding is not None and self.binding.axes:
            return self.binding.prepare(image, self.engine, self.dataset)
        if self.spec.space == NATIVE:
            return Prepared(pixels)
        return Prepared(x, self.model.geometry(tuple(pixels.shape)))


class MaskJob(Job):
    """Masks: any segmentation network, with and without a denoiser."""

    model: SegmentationModel

    @property
    def channels(self) -> int | None:
        """What images are made: 1 grey (colour is averaged), or None to leave them to the network."""
        return 1 if self.model.in_channels == 1 else None

    def prepare(self, image: MedicalImage) -> Prepared:
        """See :class:`Job`.

        Float, linear, never through 8 bits. Colour becomes grey by the mean of its channels where the network takes one
        channel; resizing is bilinear with antialiasing for images and nearest for masks. At native resolution both are
        left as they are.
        """
        pixels, truth, size = torch.from_numpy(image.pixels), image.mask, self._size(image)
        self.model.check_axes(pixels.ndim - 1, image.id)
        geometry = mask_geometry(tuple(pixels.shape), self.channels, size)
        x = apply(geometry, pixels)
        self.refuse_tuned(image.id, x)
        if self.binding is not None and self.binding.axes:
            return self.binding.prepare(image, self.engine, self.dataset, truth)
        if self.spec.space == NATIVE:
            return self._boxed(Prepared(pixels, None, truth), image)
        if truth is not None and size is not None:
            truth = resized_truth(truth, size)
        return self._boxed(Prepared(x, geometry, truth), image)

    def _boxed(self, prepared: Prepared, image: MedicalImage) -> Prepared:
        return prepared if self.binding is None else self.binding.with_box(prepared, image, self.engine)

    def targets(self, image: MedicalImage, prepared: Prepared) -> list[Any]:
        """See :class:`Job`."""
        assert isinstance(self.target, Pixels)
        return [self.target if prepared.settings is None else replace(self.target, space=prepared.seen[1:])]

    def _size(self, image: MedicalImage) -> tuple[int, ...] | None:
        """What the image is resized to, by the spec's size or spacing."""
        steps, native = self.spec.resample, image.pixels.shape[1:]
        if steps is None:
            return self.spec.size
        if len(steps) != len(native):
            raise InputError(f"resample {steps} is of {len(steps)} axes, and {image.id} has {len(native)}")
        if image.spacing is None:
            raise ImageError(f"{image.id} cannot be resampled: its file does not say the spacing of perpendicular axes")
        return tuple(max(1, round(side * own / step)) for side, own, step in zip(native, image.spacing, steps))

    def check_settings(self) -> None:
        """See :class:`Job`."""
        for index in range(len(self.dataset)):
            try:
                image = self.dataset.load(index)
                prepared = self.prepare(image)
                targets = self.targets(image, prepared)
            except ImageError:
                continue
            for target in targets:
                budget, shape = as_budget(self.spec.budget), tuple(prepared.pixels.shape)
                target.check(shape, budget, self.spec.alpha, self.engine.law)
            return

    def clean_answer(self, prepared: Prepared) -> NDArray[Any] | None:
        """See :class:`Job`."""
        if not self.spec.masks:
            return None
        engine, pixels = self.engine_for(prepared), prepared.pixels.to(self.engine.device)
        with torch.no_grad():
            return _mask(engine.streams[PLAIN](engine.law.clean(engine.law.origin(pixels)).unsqueeze(0)))

    def scores(
        self, image: MedicalImage, prepared: Prepared, found: Mapping[str, Result[Any]], clean: NDArray[Any] | None
    ) -> dict[str, MaskScores]:
        """See :class:`Job`. Beside the certified mask: the network alone on the clean image, and on noisy copies."""
        if prepared.truth is None or clean is None:
            return {}
        assert isinstance(self.spec.target, MaskTarget | MeasureTarget)
        engine, pixels = self.engine_for(prepared), prepared.pixels.to(self.engine.device)
        key = NoiseKey(self.spec.seed, image.id, "evaluation")
        with torch.no_grad():
            made = {}
            for method in engine.methods:
                copies = noisy_batches(pixels, engine.law, key, NOISY_COPIES, batch_size=1)
                noisy = [_mask(method.encoder(engine.streams)(copy)) for copy in copies]
                made[method.name] = {"clean": [clean], "noisy": noisy}
        try:
            return {
                one.label: mask_scores(one, prepared.truth, plain=made[name], empty=self.spec.target.empty)
                for name, result in found.items()
                for one in result.certificates
                if isinstance(one, MaskCertificate)
            }
        except InputError as error:
            raise ImageError(f"{image.id} cannot be scored: {error}") from error


class MeasureJob(MaskJob):
    """Measurements of masks, and with taus the masks too."""

    def __init__(self, *args: Any, measurements: Sequence[Measurement], **parts: Any) -> None:
        super().__init__(*args, **parts)
        self.measurements = tuple(measurements)

    def targets(self, image: MedicalImage, prepared: Prepared) -> list[Any]:
        """See :class:`Job`: the masks first, where they are certified, then the measurements."""
        asked = self.spec.target
        assert isinstance(asked, MeasureTarget)
        needed = [one.name for one in self.measurements if one.kind.needs_truth]
        if needed and prepared.truth is None:
            raise ImageError(f"{image.id} has no true mask, and {needed[0]} compares with one")
        spacing = asked.spacing if image.spacing is None else image.spacing
        if spacing is not None and len(spacing) == image.pixels.ndim - 1:
            sizes = zip(image.pixels.shape[1:], prepared.seen[1:])
            spacing = tuple(step * native / here for step, (native, here) in zip(spacing, sizes))
        measured = Interval(
            *(self.model.num_classes, self.measurements, asked.radii, asked.goals(), spacing, prepared.truth),
            space=prepared.seen[1:],
        )
        return [measured] if self.target is None else [*super().targets(image, prepared), measured]


def _mask(scores: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = winning_class(scores)[0].cpu().numpy()
    return found
