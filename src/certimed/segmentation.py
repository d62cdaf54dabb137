"""Smoothed segmentation: certify every pixel of an image at once (SegCertify; Fischer, Baader, Vechev, ICML 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.budgets import Budget, Fixed, as_budget
from certimed.certificates import END_TO_END, MODEL_INPUT, MaskCertificate
from certimed.engine import PLAIN, Engine, Model, Origin, Progress
from certimed.noise import DEFAULT_LAW, NoiseLaw, as_law
from certimed.targets import Pixels

PUBLISHED_N = 100
"""Estimation samples of the published protocol."""


class SmoothedSegmenter:
    """The segmenter whose class at each pixel is the most probable one of ``model(x + sigma * noise)`` at that pixel.

    Args:
        model: callable, float32 ``(B, C, *space)`` nominally in [0, 1] -> scores ``(B, num_classes, *space)``, the
            highest score winning (ties: the lowest index); a fixed function of each input alone (modules in
            eval mode), which is checked on the first image. Two or three spatial axes.
        num_classes: number of classes, at least 2.
        sigma: noise standard deviation in [0, 1] units.
        binary_threshold: for two-class models with *one* output channel: class 1 where the channel exceeds this value
            (0 for a logit, 0.5 for a probability). It must be stated; without it one channel is refused.
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
        binary_threshold: float | None = None,
        noise: str | NoiseLaw = DEFAULT_LAW,
        device: torch.device | str | None = None,
        model_id: str | None = None,
        scope: str = END_TO_END,
        space: str = MODEL_INPUT,
    ) -> None:
        self.target = Pixels(num_classes, binary_threshold=binary_threshold)
        self.law = as_law(noise, sigma)
        self.engine = Engine.alone(model, self.law, identity=model_id, scope=scope, space=space, device=device)

    def __repr__(self) -> str:
        return (
            f"SmoothedSegmenter(num_classes={self.target.num_classes}, sigma={self.law.sigma:g}, "
            f"device={self.engine.device})"
        )

    def certify(
        self, image: Tensor | NDArray[np.floating], *, tau: float = 0.75, **settings: object
    ) -> MaskCertificate:
        """Certify all pixels of one image at radius ``sigma * Phi^-1(tau)``.

        Args:
            image: ``(C, *space)`` floats in [0, 1].
            tau: probability to exceed, 0.5 <= tau < 1; it sets the radius. Fix it before looking at results; for
                several use :meth:`certify_taus`, or read ``radius_map()`` of the certificate at any radius.
            settings: as in :meth:`certify_taus`.
        """
        return self.certify_taus(image, (tau,), **settings)[0]  # type: ignore[arg-type]

    def certify_taus(
        self,
        image: Tensor | NDArray[np.floating],
        taus: Sequence[float],
        *,
        n0: int = 10,
        budget: Budget | int | str | None = None,
        n: int | None = None,
        alpha: float = 1e-3,
        correction: str = "holm",
        seed: int = 0,
        item_id: str | None = None,
        batch_size: int | None = None,
        intensity: str | None = None,
        progress: Progress | None = None,
    ) -> tuple[MaskCertificate, ...]:
        """Several taus (radii) from one set of samples, one certificate each, in the order given.

        Each pixel's candidate class is the mode of ``n0`` selection samples; fresh estimation samples test "its
        probability is at most tau" for all pixels together. Memory does not grow with ``n``: two small integers a pixel
        (and ``num_classes`` small integers a pixel while the selection samples are counted), under a budget too.

        Guarantee: with probability at least ``1 - alpha`` over the noise no certified pixel of any of the certificates
        is wrong anywhere in its open ball, under any dependence between pixels. Each tau is tested at
        ``alpha / len(taus)`` and each certificate names its share. The taus must be fixed beforehand. The other way,
        for radii chosen after looking, is ``radius_map()`` of one certificate: valid at every radius at once without a
        split, at Bonferroni's price.

        Args:
            image: ``(C, *space)`` floats in [0, 1].
            taus: probabilities to exceed.
            n0: selection samples.
            budget: a budget or its spelling, e.g. ``"pixels:100,200,400/0.01"``: looks at growing n that stop once the
                pixels are decided at every tau, alpha covering all looks; a number is a fixed number of samples.
                Default: 100 samples, the published protocol.
            n: short for ``budget=Fixed(n)``.
            alpha: failure probability for the whole image.
            correction: ``"holm"`` or ``"bonferroni"``.
            seed, item_id: the key of the noise; without an id the image's content hash is its id.
            batch_size: samples a forward pass; does not change the noise.
            intensity: how the file's intensities became [0, 1], for the record.
            progress: called with the number of samples after each batch.

        Raises:
            InputError: an impossible argument; too few samples for tau, alpha and the number of pixels (the message
                names the n that would do). ModelError: the model broke its contract.
        """
        found = self.engine.run(
            image,
            Pixels(self.target.num_classes, tuple(taus), correction, self.target.binary_threshold),
            as_budget(budget, n, default=Fixed(PUBLISHED_N)),
            n0=n0,
            alpha=alpha,
            seed=seed,
            item_id=item_id,
            batch_size=batch_size,
            origin=Origin(intensity),
            clean=False,
            progress=progress,
        )
        certificates: tuple[MaskCertificate, ...] = found[PLAIN].certificates
        return certificates

    def certify_many(
        self, images: Iterable[tuple[str, Tensor | NDArray[np.floating]]], **settings: object
    ) -> Iterator[MaskCertificate]:
        """Certify ``(item id, image)`` pairs lazily, one at a time; settings as in :meth:`certify`.

        Each certificate holds for its own image with probability at least ``1 - alpha``.

        Raises:
            InputError: an item id comes twice (its noise would too).
        """
        for item, image in self.engine.each_once(images):
            yield self.certify(image, item_id=item, **settings)  # type: ignore[arg-type]
