"""Smoothed measurements: the median under noise of a number read off a mask, and where it stays under attack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.budgets import Budget, Fixed, Goal, as_budget, goals
from certimed.budgets.values import end_level, ends_at
from certimed.certificates import END_TO_END, MODEL_INPUT, IntervalCertificate
from certimed.engine import PLAIN, Engine, Model, Origin, Progress, check_samples
from certimed.measurements import Measurement, parse_measurement
from certimed.noise import DEFAULT_LAW, NoiseLaw, as_law
from certimed.statistics import end_index
from certimed.targets import Interval

DEFAULT_N = 100
"""Estimation samples where nothing is said, as of masks."""


@dataclass(frozen=True)
class Median:
    """A median under noise, as deployed.

    Guarantee: with probability at least ``1 - alpha`` the medians under noise of all measurements of the image lie in
    their intervals ``[lower, upper]`` (order statistics, see :mod:`certimed.statistics.order`). It says nothing about
    attacks; those are the certificate's business.

    Attributes:
        item, name, unit: what was measured.
        value: median of the samples; None where it is not defined.
        lower, upper: confidence interval; infinite where the samples are too few, or undefined.
        undefined: samples on which the measurement was not defined.
        n, alpha, sigma, seed: how it was made; alpha is of all measurements together.
    """

    item: str
    name: str
    unit: str
    value: float | None
    lower: float
    upper: float
    undefined: int
    n: int
    alpha: float
    sigma: float
    seed: int


class SmoothedMeasurement:
    """Measurements of the mask that a segmenter gives to a noisy image; what is reported is their median under noise.

    Args:
        model: as of :class:`certimed.SmoothedSegmenter`.
        num_classes: number of classes, at least 2.
        sigma: noise standard deviation in [0, 1] units.
        measurements: spellings (:func:`certimed.measurements.parse_measurement`) or objects
            (:func:`certimed.measurements.measurement` makes one of any function).
        class_names: for spellings; default: the indices.
        spacing: millimetres along each axis of the image; None: not known, lengths are in pixels.
        binary_threshold, noise, device, model_id, scope, space: as of :class:`certimed.SmoothedSegmenter`.

    Raises:
        InputError: an impossible setting. ModelError: the model is no function of one input, as far as can be seen.
    """

    def __init__(
        self,
        model: Model,
        num_classes: int,
        sigma: float,
        measurements: Sequence[str | Measurement],
        *,
        class_names: Sequence[str] | None = None,
        spacing: Sequence[float] | None = None,
        binary_threshold: float | None = None,
        noise: str | NoiseLaw = DEFAULT_LAW,
        device: torch.device | str | None = None,
        model_id: str | None = None,
        scope: str = END_TO_END,
        space: str = MODEL_INPUT,
    ) -> None:
        names = tuple(class_names or map(str, range(num_classes)))
        self.num_classes, self.binary_threshold = num_classes, binary_threshold
        self.measurements = tuple(parse_measurement(m, names) if isinstance(m, str) else m for m in measurements)
        self.spacing = None if spacing is None else tuple(float(step) for step in spacing)
        self.law = as_law(noise, sigma)
        self._target((sigma,))
        self.engine = Engine.alone(model, self.law, identity=model_id, scope=scope, space=space, device=device)

    def __repr__(self) -> str:
        named = ", ".join(one.name for one in self.measurements)
        return f"SmoothedMeasurement({named}; sigma={self.law.sigma:g}, device={self.engine.device})"

    def certify(
        self,
        image: Tensor | NDArray[np.floating],
        radii: Sequence[float] | float,
        *,
        budget: Budget | int | str | None = None,
        n: int | None = None,
        alpha: float = 1e-3,
        thresholds: Mapping[str, float] | None = None,
        widths: Mapping[str, float] | None = None,
        truth: NDArray[Any] | None = None,
        seed: int = 0,
        item_id: str | None = None,
        batch_size: int | None = None,
        intensity: str | None = None,
        progress: Progress | None = None,
    ) -> IntervalCertificate:
        """Where the median under noise of every measurement stays, for every perturbation below each radius.

        Guarantee: with probability at least ``1 - alpha`` over the noise all intervals at all radii hold together.
        Measurements and radii must be fixed beforehand; other radii are served by
        :meth:`certimed.certificates.IntervalCertificate.interval`.

        Args:
            image: ``(C, *space)`` floats in [0, 1].
            radii: L2, rising.
            budget: a budget or its spelling; ``"looks:100,200,400,1000"`` stops once all that is asked by
                ``thresholds`` and ``widths`` is known, alpha covering all looks. Default: 100 samples.
            n: short for ``budget=Fixed(n)``.
            alpha: failure probability of everything together.
            thresholds: by measurement, a number of which it is asked on which side the interval lies.
            widths: by measurement, how narrow the interval is to be at the largest radius.
            truth: integers ``space``, for measurements that compare with it.
            seed, item_id: the key of the noise; without an id the image's content hash is its id.
            batch_size: samples a forward pass; does not change the noise.
            intensity: how the file's intensities became [0, 1], for the record.
            progress: called with the number of samples after each batch.

        Raises:
            InputError: an impossible argument; a radius for which the samples are too few (the message names the n
                that would do). ModelError: the model or a measurement broke its contract.
        """
        found = self.engine.run(
            image,
            self._target((radii,) if isinstance(radii, int | float) else radii, goals(thresholds, widths), truth),
            as_budget(budget, n, default=Fixed(DEFAULT_N)),
            n0=0,
            alpha=alpha,
            seed=seed,
            item_id=item_id,
            batch_size=batch_size,
            origin=Origin(intensity),
            clean=False,
            progress=progress,
        )
        certificate: IntervalCertificate = found[PLAIN].certificate
        return certificate

    def certify_many(
        self, images: Iterable[tuple[str, Tensor | NDArray[np.floating]]], radii: Sequence[float], **settings: Any
    ) -> Iterator[IntervalCertificate]:
        """Certify ``(item id, image)`` pairs lazily, one at a time; settings as in :meth:`certify`.

        Raises:
            InputError: an item id comes twice (its noise would too).
        """
        for item, image in self.engine.each_once(images):
            yield self.certify(image, radii, item_id=item, **settings)

    def predict(
        self,
        image: Tensor | NDArray[np.floating],
        *,
        n: int = 1_000,
        alpha: float = 1e-3,
        truth: NDArray[Any] | None = None,
        seed: int = 0,
        item_id: str | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Median]:
        """What is deployed: the median under noise of each measurement, with its own confidence interval.

        Fresh samples, so neither choice nor certificate has seen them; alpha is split over all ends.
        """
        target = self._target((self.law.sigma,), truth=truth)
        check_samples(n0=None, n=n, alpha=alpha)
        subject = self.engine.subject(image, item_id, seed, batch_size, target)
        values = self.engine.counts(subject, target, "prediction", n, progress).values
        level = end_level(alpha, len(self.measurements), 1)
        place = end_index(n, self.law.probability(0.0), level, self.law.variation(subject.image.numel()))
        found = {}
        for one, row in zip(self.measurements, values):
            ordered = np.sort(row[~np.isnan(row)])
            lower, upper = ends_at(ordered, n, place)
            middle = (n + 1) // 2
            found[one.name] = Median(
                item=subject.item,
                name=one.name,
                unit=one.unit(self.spacing, subject.image.ndim - 1),
                value=float(ordered[middle - 1]) if middle <= len(ordered) else None,
                lower=lower,
                upper=upper,
                undefined=n - len(ordered),
                n=n,
                alpha=alpha,
                sigma=self.law.sigma,
                seed=seed,
            )
        return found

    def _target(
        self, radii: Sequence[float], asked: dict[str, Goal] | None = None, truth: NDArray[Any] | None = None
    ) -> Interval:
        return Interval(
            self.num_classes, self.measurements, tuple(radii), asked, self.spacing, truth, self.binary_threshold
        )
