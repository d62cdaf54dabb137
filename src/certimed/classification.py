"""Smoothed classification: predict, and certify the prediction against every L2 attack (Cohen et al., ICML 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.acceleration import arithmetic, coarsest_dtype
from certimed.budgets import Budget, Fixed, Outcome, as_budget
from certimed.certificates import END_TO_END, MODEL_INPUT, ClassCertificate, collect_provenance
from certimed.contract import OneAnswer, refuse_what_is_no_function, unchanged
from certimed.errors import InputError
from certimed.noise import NoiseKey
from certimed.noise import item_id as content_id
from certimed.sampling import Model, Progress, as_image, check_scores, check_sigma, count_classes, one_answer
from certimed.statistics import predict_p_value


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
            of each input alone (modules must be in eval mode). :meth:`certimed.acceleration.Acceleration.wrap` makes
            it faster, and certificates then say in which precision it ran.
        num_classes: number of classes, at least 2.
        sigma: noise standard deviation in [0, 1] units.
        device: where images and noise live; default: the device of the model's first parameter, else the CPU.
        model_id: identity of the model for the certificate's provenance.
        scope, space: recorded on certificates; see :mod:`certimed.certificates.scope`.

    Attributes:
        one_answer: what :func:`certimed.contract.check_one_answer` saw before the first image was counted.

    Raises:
        InputError: an impossible setting. ModelError: the model is no fixed function of one input, see
            :func:`certimed.contract.refuse_what_is_no_function`.
    """

    def __init__(
        self,
        model: Model,
        num_classes: int,
        sigma: float,
        *,
        device: torch.device | str | None = None,
        model_id: str | None = None,
        scope: str = END_TO_END,
        space: str = MODEL_INPUT,
    ) -> None:
        if num_classes < 2:
            raise InputError(f"num_classes={num_classes} leaves nothing to decide; use 2 or more")
        refuse_what_is_no_function(model)
        self.model = model
        self.num_classes = num_classes
        self.sigma = check_sigma(sigma)
        self.device = torch.device(device) if device is not None else model_device(model)
        self.model_id = model_id
        self.scope = scope
        self.space = space
        self.one_answer: OneAnswer | None = None

    def __repr__(self) -> str:
        return f"SmoothedClassifier(num_classes={self.num_classes}, sigma={self.sigma:g}, device={self.device})"

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
        chosen = as_budget(budget, n)
        check_samples(n0=n0, n=chosen.cap, alpha=alpha)
        tensor = as_image(image, self.device)
        item = item_id if item_id is not None else content_id(tensor)
        with self._checked(tensor, seed, item, batch_size):
            selection = self._count(tensor, seed, item, "selection", n0, batch_size, progress)
            estimation, outcome = chosen.start(selection, alpha, self.sigma, bound).run(
                lambda start, more: self._count(tensor, seed, item, "estimation", more, batch_size, progress, start)
            )
        return certificate_from_counts(
            selection,
            estimation,
            budget=chosen,
            outcome=outcome,
            item=item,
            alpha=alpha,
            sigma=self.sigma,
            seed=seed,
            shape=tuple(tensor.shape),
            bound=bound,
            device=str(self.device),
            dtype=arithmetic(self.model),
            model_id=self.model_id,
            intensity=intensity,
            scope=self.scope,
            space=self.space,
        )

    def certify_many(
        self,
        images: Iterable[tuple[str, Tensor | NDArray[np.floating]]],
        *,
        n0: int = 100,
        budget: Budget | int | str | None = None,
        n: int | None = None,
        alpha: float = 1e-3,
        seed: int = 0,
        batch_size: int | None = None,
        bound: str = "one-sided",
        progress: Progress | None = None,
    ) -> Iterator[ClassCertificate]:
        """Certify ``(item id, image)`` pairs lazily, one at a time; arguments as in :meth:`certify`.

        Raises:
            InputError: an item id comes twice (its noise would too).
        """
        seen: set[str] = set()
        for item, image in images:
            if item in seen:
                raise InputError(f"item id {item!r} comes twice; ids name the noise and must be unique in a run")
            seen.add(item)
            yield self.certify(
                image,
                n0=n0,
                budget=budget,
                n=n,
                alpha=alpha,
                seed=seed,
                item_id=item,
                batch_size=batch_size,
                bound=bound,
                progress=progress,
            )

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
        """The smoothed class, or abstention (Cohen's PREDICT: two-sided binomial test of the two largest counts)."""
        check_samples(n0=1, n=n, alpha=alpha)
        tensor = as_image(image, self.device)
        item = item_id if item_id is not None else content_id(tensor)
        with self._checked(tensor, seed, item, batch_size):
            counts = self._count(tensor, seed, item, "prediction", n, batch_size, progress)
        second, top = (int(index) for index in np.argsort(counts, kind="stable")[-2:])
        p_value = float(predict_p_value(int(counts[top]), int(counts[second])))
        as_ints = tuple(int(count) for count in counts)
        return Prediction(item, top, p_value > alpha, p_value, as_ints, alpha, self.sigma, seed)

    @contextmanager
    def _checked(self, image: Tensor, seed: int, item: str, batch_size: int | None) -> Iterator[None]:
        """Counting happens in here: the model has given one answer before, and leaves the image alone."""
        with unchanged(image):
            if self.one_answer is None:
                with torch.inference_mode():
                    self.one_answer = one_answer(
                        lambda x: check_scores(self.model(x), (len(x), self.num_classes)),
                        image,
                        self.sigma,
                        NoiseKey(seed, item, "probe"),
                        batch_size=batch_size,
                        dtype=coarsest_dtype(self.model),
                    )
            yield

    def _count(
        self,
        image: Tensor,
        seed: int,
        item: str,
        phase: str,
        n: int,
        batch_size: int | None,
        progress: Progress | None,
        start: int = 0,
    ) -> NDArray[np.int64]:
        return count_classes(
            self.model,
            image,
            sigma=self.sigma,
            key=NoiseKey(seed, item, phase),
            n=n,
            num_classes=self.num_classes,
            batch_size=batch_size,
            start=start,
            progress=progress,
        )


def certificate_from_counts(
    selection: NDArray[np.int64],
    estimation: NDArray[np.int64],
    *,
    budget: Budget | None = None,
    outcome: Outcome | None = None,
    item: str,
    alpha: float,
    sigma: float,
    seed: int,
    shape: tuple[int, ...],
    bound: str = "one-sided",
    device: str = "cpu",
    dtype: str = "float32",
    model_id: str | None = None,
    intensity: str | None = None,
    scope: str = END_TO_END,
    space: str = MODEL_INPUT,
    notes: tuple[str, ...] = (),
) -> ClassCertificate:
    """The certificate that selection and estimation counts prove; the one place where counts become a radius.

    Args:
        selection, estimation: int64 ``(K,)`` counts from *disjoint* samples.
        budget, outcome: the budget the estimation samples were drawn under, and what its session proved. Default: all
            of them looked at once, as under ``Fixed(n)``.
        sigma: the standard deviation the radius is computed for (for a split certificate the effective one).
    """
    if budget is None or outcome is None:
        budget = Fixed(int(estimation.sum()))
        outcome = budget.start(selection, alpha, sigma, bound).finish(estimation)
    proved = outcome.bound
    return ClassCertificate(
        item=item,
        prediction=int(np.argmax(selection)),
        abstained=bool(proved.abstained),
        radius=float(proved.radius),
        p_lower=float(proved.p_lower),
        q_upper=None if proved.q_upper is None else float(proved.q_upper),
        counts=tuple(int(count) for count in estimation),
        n0=int(selection.sum()),
        n=outcome.n,
        budget=str(budget),
        looks=outcome.looks,
        proved_at=outcome.proved_at,
        stopped=outcome.reason,
        alpha=float(alpha),
        sigma=float(sigma),
        bound=bound,
        seed=int(seed),
        shape=shape,
        provenance=collect_provenance(device, dtype=dtype, model=model_id, intensity=intensity),
        scope=scope,
        space=space,
        notes=notes,
    )


def check_samples(*, n0: int, n: int, alpha: float) -> None:
    """Refuse sample sizes and failure probabilities that make no sense, with InputError."""
    if n0 < 1 or n < 1:
        raise InputError(f"n0={n0}, n={n}: both need at least 1 sample")
    if not 0 < alpha < 1:
        raise InputError(f"alpha={alpha} is no failure probability; use a value between 0 and 1, e.g. 0.001")


def model_device(model: Model) -> torch.device:
    """Device of a module's first parameter; the CPU for anything else."""
    if isinstance(model, torch.nn.Module):
        for parameter in model.parameters():
            return parameter.device
    return torch.device("cpu")
