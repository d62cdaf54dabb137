"""Smoothed classification: predict, and certify the prediction within an L2 radius (Cohen et al., ICML 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.budgets import Budget, as_budget
from certimed.certificates import END_TO_END, MODEL_INPUT, ClassCertificate
from certimed.engine import PLAIN, Engine, Model, Origin, Progress, check_samples
from certimed.noise import DEFAULT_LAW, NoiseLaw, as_law
from certimed.statistics import p_value_more, predict_p_value
from certimed.targets import Classes


@dataclass(frozen=True)
class Prediction:
    """Answer of Cohen's PREDICT.

    Guarantee: unless ``abstained``, ``prediction`` is the smoothed classifier's class with probability at least
    ``1 - alpha`` (Cohen et al. 2019, Proposition 2). It says nothing about attacks.
    """

    item: str
    prediction: int
    abstained: bool
    p_value: float
    counts: tuple[int, ...]
    alpha: float
    sigma: float
    seed: int


class SmoothedClassifier:
    """The classifier g(x) = most probable class of ``model(x + sigma * noise)``.

    Args:
        model: callable, float32 ``(B, C, *space)`` nominally in [0, 1] -> scores ``(B, num_classes)``; a fixed function
            of each input alone (modules must be in eval mode), which is checked on the first image.
            :meth:`certimed.engine.Acceleration.wrap` makes it faster, and certificates then say in which precision it
            ran.
        num_classes: number of classes, at least 2.
        sigma: noise standard deviation in [0, 1] units.
        noise: the noise law or its name, see :mod:`certimed.noise`.
        device: where images and noise live; default: the device of the model's first parameter, else the CPU.
        model_id: identity of the model for the certificate's provenance.
        scope, space: recorded on certificates; see :mod:`certimed.certificates.scope`.

    Raises:
        InputError: an impossible setting. ModelError: the model is no function of one input, as far as can be seen.
    """

    def __init__(
        self,
        model: Model,
        num_classes: int,
        sigma: float,
        *,
        noise: str | NoiseLaw = DEFAULT_LAW,
        device: torch.device | str | None = None,
        model_id: str | None = None,
        scope: str = END_TO_END,
        space: str = MODEL_INPUT,
    ) -> None:
        self.target = Classes(num_classes)
        self.law = as_law(noise, sigma)
        self.engine = Engine.alone(model, self.law, identity=model_id, scope=scope, space=space, device=device)

    def __repr__(self) -> str:
        return (
            f"SmoothedClassifier(num_classes={self.target.num_classes}, sigma={self.law.sigma:g}, "
            f"device={self.engine.device})"
        )

    def certify(
        self,
        image: Tensor | NDArray[np.floating],
        *,
        n0: int = 100,
        budget: Budget | int | str | None = None,
        n: int | None = None,
        alpha: float = 1e-3,
        seed: int = 0,
        item_id: str | None = None,
        batch_size: int | None = None,
        bound: str = "one-sided",
        intensity: str | None = None,
        progress: Progress | None = None,
    ) -> ClassCertificate:
        """Certify one image (Cohen's CERTIFY, under any budget of :mod:`certimed.budgets`).

        The class is chosen on ``n0`` selection samples; fresh estimation samples, as many as the budget asks for, bound
        its probability.

        Args:
            image: ``(C, *space)`` floats in [0, 1].
            n0: selection samples.
            budget: a budget or its spelling, e.g. ``"grid"``, ``"betting:0.25"``; a number is a fixed number of
                samples. Default: ``Grid()``, at most 10 000 samples, enough to place the radius among the published
                ones. Under every budget the samples are the first ones of the same stream.
            n: short for ``budget=Fixed(n)``, the published procedure.
            alpha: failure probability of the certificate, all looks together.
            seed, item_id: the key of the noise; without an id the image's content hash is its id, so the certificate
                does not depend on what else is certified, nor in which order.
            batch_size: samples a forward pass; does not change the noise.
            bound: ``"one-sided"`` (Clopper-Pearson), ``"two-sided"`` or ``"best"``.
            intensity: how the file's intensities became [0, 1], for the record.
            progress: called with the number of samples after each batch.

        Raises:
            InputError: an impossible argument. ModelError: the model broke its contract.
        """
        found = self.engine.run(
            image,
            Classes(self.target.num_classes, bound),
            as_budget(budget, n),
            n0=n0,
            alpha=alpha,
            seed=seed,
            item_id=item_id,
            batch_size=batch_size,
            origin=Origin(intensity),
            clean=False,
            progress=progress,
        )
        certificate: ClassCertificate = found[PLAIN].certificate
        return certificate

    def certify_many(
        self, images: Iterable[tuple[str, Tensor | NDArray[np.floating]]], **settings: object
    ) -> Iterator[ClassCertificate]:
        """Certify ``(item id, image)`` pairs lazily, one at a time; settings as in :meth:`certify`.

        Raises:
            InputError: an item id comes twice (its noise would too).
        """
        for item, image in self.engine.each_once(images):
            yield self.certify(image, item_id=item, **settings)  # type: ignore[arg-type]

    def predict(
        self,
        image: Tensor | NDArray[np.floating],
        *,
        n: int = 1_000,
        alpha: float = 1e-3,
        seed: int = 0,
        item_id: str | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """The smoothed class, or abstention (Cohen's PREDICT: two-sided binomial test of the two largest counts).

        The p-value is exact for independent samples of the exact law. Every event about n samples of the noise that is
        drawn has a probability that differs by at most n times the law's variation (total variation is subadditive over
        products), so that much is added.
        """
        check_samples(n0=1, n=n, alpha=alpha)
        subject = self.engine.subject(image, item_id, seed, batch_size, self.target)
        counts = self.engine.counts(subject, self.target, "prediction", n, progress)
        second, top = (int(index) for index in np.argsort(counts, kind="stable")[-2:])
        p_value = float(predict_p_value(int(counts[top]), int(counts[second])))
        p_value = float(p_value_more(p_value, n, self.law.variation(subject.image.numel())))
        as_ints = tuple(int(count) for count in counts)
        return Prediction(subject.item, top, p_value > alpha, p_value, as_ints, alpha, self.law.sigma, seed)
