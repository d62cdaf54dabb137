"""Certify the masks of a data set image by image into a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from certimed.acceleration import FLOAT32, Acceleration
from certimed.certificates import MODEL_INPUT, NATIVE, MaskCertificate
from certimed.classification import model_device
from certimed.data import Dataset, MedicalImage
from certimed.errors import ImageError, InputError, ModelError
from certimed.metrics import MaskScores, mask_scores
from certimed.noise import NoiseKey
from certimed.operators import apply
from certimed.runs.classification import RunWork, remaining
from certimed.runs.folder import RunFolder
from certimed.runs.mask_records import MaskRecord
from certimed.runs.records import CERTIFIED, FAILED
from certimed.sampling import Progress, noisy_batches
from certimed.segmentation import SmoothedSegmenter, winning_class
from certimed.segmenters.native import mask_geometry
from certimed.throughput import probe_batch_size, settled

PLAIN = "plain"
DENOISED = "denoised"


@dataclass(frozen=True)
class MaskSettings:
    """Settings of a segmentation run; see :meth:`certimed.segmentation.SmoothedSegmenter.certify`.

    Attributes:
        n: estimation samples; under a budget the most that an image can cost.
        tau: one tau, or several: each then has certificates of its own, named by :meth:`name`, at an equal share of
            alpha.
        budget: spelling of a :class:`~certimed.budgets.PixelLooks`, or None: n samples an image.
        size: ``(height, width)`` images are resized to in float, or None for their own size.
        empty: convention for classes absent from truth and prediction.
        space: ``"model input"``, or ``"native"``: noise, mask and truth at native resolution, the resize inside.
        batch_size: samples a forward pass, None for the default, ``"auto"`` to be settled by
            :meth:`MaskCertifier.probe`.
        acceleration: how every model runs.
    """

    sigma: float
    n0: int = 10
    n: int = 100
    tau: float | tuple[float, ...] = 0.75
    alpha: float = 1e-3
    correction: str = "holm"
    k_fwer: int = 1
    seed: int = 0
    batch_size: int | str | None = None
    size: tuple[int, int] | None = None
    empty: str = "one"
    budget: str | None = None
    space: str = MODEL_INPUT
    acceleration: Acceleration = FLOAT32

    @property
    def taus(self) -> tuple[float, ...]:
        """Every tau."""
        return self.tau if isinstance(self.tau, tuple) else (self.tau,)

    def name(self, method: str, tau: float) -> str:
        """Under which name a method's certificates at a tau are kept: ``"denoised"``, ``"denoised tau 0.9"``."""
        return method if len(self.taus) == 1 else f"{method} tau {tau!r}"

    def names(self, methods: Iterable[str]) -> list[str]:
        """The names of all methods' certificates."""
        return [self.name(method, tau) for method in methods for tau in self.taus]


class MaskCertifier:
    """Certifies one image with every method: the segmenter alone, or behind a denoiser, on the same noise.

    Args:
        methods: by name, modules ``(B, C, H, W)`` in [0, 1] -> scores ``(B, K, H, W)``, in eval mode. At native
            resolution they take native images and resize inside: :class:`certimed.segmenters.NativeSegmenter`.
        segmenter: the network without a denoiser, for the clean image's Dice; takes what the methods take.
        channels: what images are made: 1 grey (colour is averaged), 3 colour (grey stays one channel, which the
            network repeats), or None to leave them.
        model_ids: identity of each method's model.
    """

    def __init__(
        self,
        methods: Mapping[str, nn.Module],
        segmenter: nn.Module,
        num_classes: int,
        settings: MaskSettings,
        *,
        channels: int | None = None,
        model_ids: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        ids, wrap = model_ids or {}, settings.acceleration.wrap
        self.smoothed = {
            name: SmoothedSegmenter(
                wrap(model), num_classes, settings.sigma, model_id=ids.get(name), space=settings.space
            )
            for name, model in methods.items()
        }
        self.segmenter = self.smoothed[PLAIN].model if methods.get(PLAIN) is segmenter else wrap(segmenter)
        self.settings = settings
        self.channels = channels
        self.progress = progress

    def probe(self, image: MedicalImage) -> int:
        """The batch size that pays for the slowest method on an image of this size."""
        pixels, _ = prepare(image, self.channels, self.settings.size, self.settings.space)
        smoothed = self.smoothed.get(DENOISED, next(iter(self.smoothed.values())))
        return probe_batch_size(smoothed.model, pixels.to(smoothed.device), sigma=self.settings.sigma)

    def __call__(self, image: MedicalImage) -> tuple[dict[str, MaskCertificate], dict[str, MaskScores]]:
        """Certificates, and scores where the image has a mask, by method (and tau, where there are several).

        Raises:
            ImageError: the image or its mask does not fit. ModelError: a model broke its contract.
        """
        s = self.settings
        pixels, truth = prepare(image, self.channels, s.size, s.space)
        shape = tuple(image.pixels.shape)
        geometry = None if s.space == NATIVE else mask_geometry(shape, self.channels, s.size)
        certificates: dict[str, MaskCertificate] = {}
        for method, smoothed in self.smoothed.items():
            found = smoothed.certify_taus(
                pixels,
                s.taus,
                n0=s.n0,
                budget=s.n if s.budget is None else s.budget,
                alpha=s.alpha,
                correction=s.correction,
                k_fwer=s.k_fwer,
                seed=s.seed,
                item_id=image.id,
                batch_size=settled(s.batch_size),
                intensity=image.intensity,
                progress=self.progress,
            )
            certificates |= {s.name(method, one.tau): one.with_geometry(geometry) for one in found}
        return certificates, {} if truth is None else self._scores(image, pixels, truth, certificates)

    def _scores(
        self,
        image: MedicalImage,
        pixels: Tensor,
        truth: NDArray[np.int64],
        certificates: Mapping[str, MaskCertificate],
    ) -> dict[str, MaskScores]:
        s = self.settings
        clean = self._mask(self.segmenter, pixels.unsqueeze(0).clone())
        noisy = next(noisy_batches(pixels, s.sigma, NoiseKey(s.seed, image.id, "evaluation"), 1))
        scores = {}
        for method, smoothed in self.smoothed.items():
            plain = {"clean": clean, "noisy": self._mask(smoothed.model, noisy)}
            for name in s.names([method]):
                try:
                    scores[name] = mask_scores(certificates[name], truth, plain=plain, empty=s.empty)
                except InputError as error:
                    raise ImageError(f"{image.id} cannot be scored: {error}") from error
        return scores

    @staticmethod
    def _mask(model: Callable[[Tensor], Tensor], x: Tensor) -> NDArray[np.uint8]:
        with torch.inference_mode():
            return np.asarray(winning_class(model(x.to(model_device(model))))[0].cpu().numpy())


def prepare(
    image: MedicalImage, channels: int | None, size: tuple[int, int] | None, space: str = MODEL_INPUT
) -> tuple[Tensor, NDArray[np.int64] | None]:
    """Image and truth in the certified space: float, linear, never through 8 bits.

    Colour becomes grey by the mean of its channels where the network takes one channel; resizing is bilinear with
    antialiasing for images and nearest for masks. At native resolution both are left as they are.
    """
    pixels, truth = torch.from_numpy(image.pixels), image.mask
    if space == NATIVE:
        return pixels, truth
    if truth is not None and size is not None and tuple(pixels.shape[1:]) != tuple(size):
        nearest = functional.interpolate(torch.from_numpy(truth)[None, None].double(), size, mode="nearest-exact")
        truth = nearest[0, 0].long().numpy()
    return apply(mask_geometry(tuple(pixels.shape), channels, size), pixels), truth


def certify_masks(
    dataset: Dataset,
    certifier: MaskCertifier,
    folder: RunFolder,
    *,
    retry_failed: bool = False,
    announce: Callable[[str], None] | None = None,
) -> Iterator[MaskRecord]:
    """Certify the unfinished images of a data set; each is on disk, arrays first, before the next one starts.

    An image that cannot be read, or on which a model breaks its contract, becomes a failed record with the reason.
    """
    for index in remaining(dataset, folder, retry_failed=retry_failed):
        if announce is not None:
            announce(dataset.items[index].id)
        record = certify_mask(dataset, index, certifier)
        record.write_arrays(folder.path)
        folder.append(record)
        yield record


class MaskWork(RunWork[MaskCertifier, MaskRecord]):
    """What a worker of a segmentation run does: ``MaskWork(make, **arguments of make)``; see :class:`RunWork`."""

    def __init__(self, make: Callable[..., tuple[Dataset, MaskCertifier]], **arguments: Any) -> None:
        super().__init__(certify_mask, make, arguments)


def lost_mask(item: str, reason: str) -> MaskRecord:
    """The failed record of an image whose worker ended every time it was tried."""
    return MaskRecord(item, FAILED, reason=reason)


def certify_mask(dataset: Dataset, index: int, certifier: MaskCertifier) -> MaskRecord:
    """The record of one image; errors of the image or a model become a failed record."""
    begin = time.perf_counter()
    item, group = dataset.items[index].id, dataset.items[index].group
    try:
        certificates, scores = certifier(dataset.load(index))
    except (ImageError, ModelError) as error:
        return MaskRecord(item, FAILED, group, str(error), time.perf_counter() - begin)
    return MaskRecord(item, CERTIFIED, group, None, time.perf_counter() - begin, certificates, scores)
