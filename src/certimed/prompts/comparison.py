"""Several methods certified on the same noise, for little more than the price of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from certimed.budgets import Budget, as_budget
from certimed.certificates import CHOSEN_AT_X, END_TO_END, MODEL_INPUT, NATIVE, ClassCertificate, Share
from certimed.engine import (
    DENOISED,
    FLOAT32,
    PLAIN,
    Acceleration,
    EmbeddingCache,
    Engine,
    Method,
    ModelStream,
    Origin,
    Progress,
    Result,
)
from certimed.errors import InputError
from certimed.noise import DEFAULT_LAW, NoiseLaw, as_law
from certimed.targets import Classes
from certimed.vlm.native import NativeModel
from certimed.vlm.protocol import FeatureModel


@dataclass(frozen=True)
class Agreement:
    """What is proved of the pipeline "answer if all methods agree, else abstain".

    Guarantee: with probability at least ``1 - alpha`` over the noise, the pipeline answers ``prediction`` for every
    perturbation with L2 norm below ``radius``, end to end. Proof: each of the m certificates is bounded at alpha/m, so
    all are right together with probability at least 1 - alpha (union bound); within the smallest of their radii every
    smoothed method answers ``prediction``, so they agree. Nothing is chosen at the image.

    Attributes:
        prediction: the class all methods answer, None where one abstained or they differ.
        radius: the smallest of theirs, 0 where there is no such class.
        alpha: failure probability.
        certificates: by method, each at its share.
    """

    prediction: int | None
    radius: float
    alpha: float
    certificates: dict[str, ClassCertificate]


class PromptComparison:
    """Certifies an image with several methods; noisy copies are embedded once for all of them.

    Each certificate holds on its own at its own alpha. Reporting only the best of m methods is a choice made at the
    image: :meth:`certify_best` pays for it and its scope says so; :meth:`certify_agreement` is the sound pipeline
    beside it.

    Args:
        vlm: the frozen model; for methods of a plain classifier, that classifier. In a
            :class:`~certimed.vlm.NativeModel`, images are certified at native resolution.
        methods: see :func:`certimed.prompts.prompt_methods`.
        sigma: noise level in [0, 1] units.
        noise: the noise law or its name.
        denoiser: module ``x -> x`` made for this sigma; needed by methods on the stream "denoised": the same noise,
            then the denoiser, then the encoder (denoised smoothing, Salman et al., NeurIPS 2020).
        acceleration: how denoiser and image encoder run, see :mod:`certimed.engine.acceleration`.
        cache: embeddings are kept here for further comparisons until ``cache.forget(item)``. Without one they are
            kept while an image is being certified only.

    Raises:
        InputError: no methods, repeated names, class counts that differ, or a missing denoiser.
    """

    def __init__(
        self,
        vlm: FeatureModel,
        methods: Sequence[Method],
        sigma: float,
        *,
        noise: str | NoiseLaw = DEFAULT_LAW,
        denoiser: nn.Module | None = None,
        acceleration: Acceleration | None = None,
        cache: EmbeddingCache | None = None,
    ) -> None:
        classes = {method.num_classes for method in methods}
        if len(classes) > 1 or None in classes:
            raise InputError(f"the methods have different numbers of classes ({classes}); compare one class list")
        if denoiser is None and any(method.stream == DENOISED for method in methods):
            raise InputError("method 'denoised' needs a denoiser; pass one made for this sigma as denoiser")
        how = acceleration or FLOAT32
        streams = {PLAIN: ModelStream(vlm, acceleration=how)}
        if denoiser is not None:
            streams[DENOISED] = ModelStream(vlm, denoiser, acceleration=how)
        self.vlm = vlm
        self.law = as_law(noise, sigma)
        space = NATIVE if isinstance(vlm, NativeModel) else MODEL_INPUT
        self.engine = Engine(streams, methods, self.law, space=space, device=vlm.device, cache=cache, share_copies=True)
        self.num_classes = next(iter(classes)) or 0

    def __repr__(self) -> str:
        names = ", ".join(method.name for method in self.engine.methods)
        return f"PromptComparison({self.vlm.name}, methods={names}, sigma={self.law.sigma:g})"

    def certify(self, image: Tensor | NDArray[np.floating], **settings: object) -> dict[str, ClassCertificate]:
        """The certificates of :meth:`run` alone, by method name; arguments as there."""
        results = self.run(image, **settings)  # type: ignore[arg-type]
        return {name: result.certificate for name, result in results.items()}

    def run(
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
    ) -> dict[str, Result[ClassCertificate]]:
        """Certify one image with every method; arguments as in ``SmoothedClassifier.certify``.

        A method with fixed text features gets exactly the counts ``SmoothedClassifier`` gives it for the same seed,
        item and batch size.

        Returns:
            by method name, in order.

        Raises:
            InputError: an impossible argument. ModelError: a model or method broke its contract.
        """
        return self.engine.run(
            image,
            Classes(self.num_classes, bound),
            as_budget(budget, n),
            n0=n0,
            alpha=alpha,
            seed=seed,
            item_id=item_id,
            batch_size=batch_size,
            origin=Origin(intensity),
            progress=progress,
        )

    def certify_best(
        self, image: Tensor | NDArray[np.floating], *, alpha: float = 1e-3, **settings: object
    ) -> tuple[str, ClassCertificate]:
        """The method with the largest radius, and its certificate.

        Guarantee: each of the m methods is bounded at alpha/m (Bonferroni), so all m certificates hold together with
        probability at least 1 - alpha, and so does the one chosen after seeing them. Which one is chosen is a function
        of the image, so its scope is "chosen at x": nothing is said about the pipeline that chooses.
        """
        found = self._shared(image, alpha, settings)
        name = max(found, key=lambda candidate: found[candidate].radius)
        best = found[name]
        scope = CHOSEN_AT_X if best.scope == END_TO_END else best.scope
        return name, replace(best, about=replace(best.about, scope=scope, chosen_from=tuple(found)))

    def certify_agreement(
        self, image: Tensor | NDArray[np.floating], *, alpha: float = 1e-3, **settings: object
    ) -> Agreement:
        """What is proved if only an answer that all methods give counts.

        Raises:
            InputError: a method whose scope is not end-to-end, as its own pipeline is not certified.
        """
        narrow = [method.name for method in self.engine.methods if method.scope != END_TO_END]
        if narrow:
            raise InputError(f"method {narrow[0]!r} is tuned at the image, so nothing is proved of its pipeline")
        found = self._shared(image, alpha, settings)
        answers = {None if one.abstained else one.prediction for one in found.values()}
        prediction = answers.pop() if len(answers) == 1 else None
        radius = 0.0 if prediction is None else min(one.radius for one in found.values())
        return Agreement(prediction, radius, float(alpha), found)

    def _shared(
        self, image: Tensor | NDArray[np.floating], alpha: float, settings: dict[str, object]
    ) -> dict[str, ClassCertificate]:
        count = len(self.engine.methods)
        found = self.certify(image, alpha=alpha / count, **settings)
        if count == 1:
            return found
        share = Share(alpha / count, float(alpha), count, "methods")
        return {name: replace(one, share=share) for name, one in found.items()}
