"""Smoothed segmentation: certify every pixel of an image at once (SegCertify; Fischer, Baader, Vechev, ICML 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.acceleration import arithmetic, coarsest_dtype
from certimed.budgets import PixelLooks, as_pixel_budget
from certimed.certificates import END_TO_END, MODEL_INPUT, MaskCertificate
from certimed.classification import check_samples, model_device
from certimed.contract import OneAnswer, refuse_what_is_no_function, threshold_scores, unchanged
from certimed.errors import InputError, ModelError
from certimed.noise import NoiseKey
from certimed.noise import item_id as content_id
from certimed.pixelwise import certificate_from_agreement, check_tau, start_sessions, winning_class
from certimed.sampling import (
    Model,
    Progress,
    as_image,
    check_scores,
    check_sigma,
    noisy_batches,
    one_answer,
)
from certimed.statistics import alpha_split

__all__ = ["SmoothedSegmenter", "certificate_from_agreement", "check_tau", "winning_class"]

_BATCH_BYTES = 48 << 20
_CPU_BATCH_BYTES = 16 << 20  # larger batches leave the cache: a small U-Net at 256x256 then takes 1.5 times as long
_FLOAT_BYTES = 4


class SmoothedSegmenter:
    """The segmenter whose class at each pixel is the most probable one of ``model(x + sigma * noise)`` at that pixel.

    Args:
        model: callable, float32 ``(B, C, *space)`` nominally in [0, 1] -> scores ``(B, num_classes, *space)``, the
            highest score winning (ties: the lowest index); a fixed function of each input alone (modules in
            eval mode). Two or three spatial axes.
        num_classes: number of classes, at least 2.
        sigma: noise standard deviation in [0, 1] units.
        binary_threshold: for two-class models with *one* output channel: class 1 where the channel exceeds this value
            (0 for a logit, 0.5 for a probability). It must be stated; without it one channel is refused.
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
        binary_threshold: float | None = None,
        device: torch.device | str | None = None,
        model_id: str | None = None,
        scope: str = END_TO_END,
        space: str = MODEL_INPUT,
    ) -> None:
        if num_classes < 2:
            raise InputError(f"num_classes={num_classes} leaves nothing to decide; count the background, use 2 or more")
        if binary_threshold is not None and (num_classes != 2 or not math.isfinite(binary_threshold)):
            raise InputError(
                f"binary_threshold={binary_threshold} with num_classes={num_classes}: a threshold must be finite and "
                "needs exactly 2 classes; leave it out for models with one channel a class"
            )
        refuse_what_is_no_function(model)
        self.model = model
        self.num_classes = num_classes
        self.sigma = check_sigma(sigma)
        self.binary_threshold = binary_threshold
        self.device = torch.device(device) if device is not None else model_device(model)
        self.model_id = model_id
        self.scope = scope
        self.space = space
        self.one_answer: OneAnswer | None = None

    def __repr__(self) -> str:
        return f"SmoothedSegmenter(num_classes={self.num_classes}, sigma={self.sigma:g}, device={self.device})"

    def default_batch_size(self, shape: tuple[int, ...]) -> int:
        """Samples a forward pass for an input ``(C, *space)``: noise, scores and a copy in 48 MiB (CPU: 16)."""
        floats = math.prod(shape) + 2 * self.num_classes * math.prod(shape[1:])
        budget = _CPU_BATCH_BYTES if self.device.type == "cpu" else _BATCH_BYTES
        return max(1, min(1024, budget // (_FLOAT_BYTES * floats)))

    def certify(
        self,
        image: Tensor | NDArray[np.floating[Any]],
        *,
        n0: int = 10,
        n: int | None = None,
        budget: PixelLooks | int | str | None = None,
        tau: float = 0.75,
        alpha: float = 1e-3,
        correction: str = "holm",
        k_fwer: int = 1,
        seed: int = 0,
        item_id: str | None = None,
        batch_size: int | None = None,
        intensity: str | None = None,
        progress: Progress | None = None,
    ) -> MaskCertificate:
        """Certify all pixels of one image at radius ``sigma * Phi^-1(tau)``.

        Each pixel's candidate class is the mode of ``n0`` selection samples; ``n`` fresh estimation samples test "its
        probability is at most tau" for all pixels together. Memory does not grow with ``n``: two small integers a pixel
        (and ``num_classes`` small integers a pixel while the selection samples are counted), under a budget too.

        Guarantee: with probability at least ``1 - alpha`` over the noise no certified pixel is wrong anywhere in the
        open ball (see :class:`~certimed.certificates.MaskCertificate`), for Holm and Bonferroni under any
        dependence between pixels. Lehmann-Romano: fewer than ``k_fwer`` certified pixels are wrong.

        Args:
            image: ``(C, *space)`` floats in [0, 1].
            n0: selection samples.
            n: estimation samples, as many as stated: the published protocol, 100 where neither this nor a budget is
                given.
            budget: looks at growing n that stop once the pixels are decided, alpha covering all looks: see
                :class:`~certimed.budgets.PixelLooks`, or its spelling, e.g. ``"pixels:100,200,400/0.01"``.
            tau: probability to exceed, 0.5 <= tau < 1; it sets the radius. Fix it before looking at results; for
                several use :meth:`certify_taus`, or read ``radius_map()`` of the certificate at any radius.
            alpha: failure probability for the whole image.
            correction: ``"holm"``, ``"bonferroni"`` or ``"lehmann-romano"``.
            k_fwer: for Lehmann-Romano, the number of wrong pixels whose probability is bounded by alpha.
            seed, item_id: the key of the noise; without an id the image's content hash is its id.
            batch_size: samples a forward pass; does not change the noise.
            intensity: how the file's intensities became [0, 1], for the record.
            progress: called with the number of samples after each batch.

        Raises:
            InputError: an impossible argument; too few samples for tau, alpha and the number of pixels (the message
                names the n that would do). ModelError: the model broke its contract.
        """
        plan = as_pixel_budget(budget, n, 100)
        return self._certify(
            image, (tau,), n0, plan, alpha, correction, k_fwer, seed, item_id, batch_size, intensity, progress
        )[0]

    def certify_taus(
        self,
        image: Tensor | NDArray[np.floating[Any]],
        taus: Sequence[float],
        *,
        n0: int = 10,
        n: int | None = None,
        budget: PixelLooks | int | str | None = None,
        alpha: float = 1e-3,
        correction: str = "holm",
        k_fwer: int = 1,
        seed: int = 0,
        item_id: str | None = None,
        batch_size: int | None = None,
        intensity: str | None = None,
        progress: Progress | None = None,
    ) -> tuple[MaskCertificate, ...]:
        """Several taus (radii) from one set of samples, one certificate each, in the order given.

        Validity: each tau is tested at ``alpha / len(taus)``, so by the union bound all certificates hold *together*
        with probability at least ``1 - alpha``; each names its own share as its ``alpha``, and the split in its notes.
        The taus must be fixed beforehand. The other way, for radii chosen after looking, is ``radius_map()`` of one
        certificate: valid at every radius at once without a split, at Bonferroni's price. Under a budget samples are
        drawn until every tau is answered. Arguments and errors as in :meth:`certify`, but ``n`` is 1 000 by default.
        """
        plan = as_pixel_budget(budget, n, 1_000)
        return self._certify(
            image, tuple(taus), n0, plan, alpha, correction, k_fwer, seed, item_id, batch_size, intensity, progress
        )

    def certify_many(
        self,
        images: Iterable[tuple[str, Tensor | NDArray[np.floating[Any]]]],
        *,
        n0: int = 10,
        n: int | None = None,
        budget: PixelLooks | int | str | None = None,
        tau: float = 0.75,
        alpha: float = 1e-3,
        correction: str = "holm",
        k_fwer: int = 1,
        seed: int = 0,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[MaskCertificate]:
        """Certify ``(item id, image)`` pairs lazily, one at a time; arguments as in :meth:`certify`.

        Each certificate holds for its own image with probability at least ``1 - alpha``.

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
                n=n,
                budget=budget,
                tau=tau,
                alpha=alpha,
                correction=correction,
                k_fwer=k_fwer,
                seed=seed,
                item_id=item,
                batch_size=batch_size,
                progress=progress,
            )

    def redraw(
        self,
        image: Tensor | NDArray[np.floating[Any]],
        certificate: MaskCertificate,
        *,
        batch_size: int | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
        """Draw a certificate's samples again with its own key, to compare with what it records.

        Returns:
            the candidate classes, and how many estimation samples agree with the *certificate's* mask (so that counts
            remain comparable where rounding moved a candidate); both of the mask's shape. On the same kind of device
            with the same library versions they equal ``certificate.mask`` and ``certificate.agreement``.

        Raises:
            InputError: an image of another shape, a certificate of another sigma or number of classes. ModelError: the
                model broke its contract.
        """
        tensor = as_image(image, self.device)
        shape = tuple(tensor.shape)
        of_image, own = (shape, self.sigma, self.num_classes), certificate
        if (tuple(own.shape), own.sigma, own.num_classes) != of_image:
            raise InputError(
                f"the certificate of {own.item!r:.80} is of input {tuple(own.shape)}, sigma={own.sigma} and "
                f"{own.num_classes} classes, not {of_image}"
            )
        size = batch_size if batch_size is not None else self.default_batch_size(shape)
        chosen = self._modes(tensor, NoiseKey(own.seed, own.item, "selection"), own.n0, size, None)
        mask = torch.from_numpy(own.mask.astype(np.int64)).to(tensor.device, chosen.dtype)
        key = NoiseKey(own.seed, own.item, "estimation")
        _, agreement = self._agreement(tensor, mask, key, (own.n,), size, None, more=lambda counts: False)
        return chosen.cpu().numpy(), agreement

    def _certify(
        self,
        image: Tensor | NDArray[np.floating[Any]],
        taus: tuple[float, ...],
        n0: int,
        plan: PixelLooks | int,
        alpha: float,
        correction: str,
        k_fwer: int,
        seed: int,
        item_id: str | None,
        batch_size: int | None,
        intensity: str | None,
        progress: Progress | None,
    ) -> tuple[MaskCertificate, ...]:
        check_samples(n0=n0, n=plan if isinstance(plan, int) else plan.cap, alpha=alpha)
        tensor = as_image(image, self.device)
        shape = tuple(tensor.shape)
        shares = [alpha] if len(taus) == 1 else [float(share) for share in alpha_split(alpha, len(taus))]
        sessions = start_sessions(plan, shape[1:], taus, shares, correction, k_fwer)
        item = item_id if item_id is not None else content_id(tensor)
        size = batch_size if batch_size is not None else self.default_batch_size(shape)
        mask = self._modes(tensor, NoiseKey(seed, item, "selection"), n0, size, progress)
        sizes = (plan,) if isinstance(plan, int) else plan.sizes

        def wanted(agreement: NDArray[np.integer[Any]]) -> bool:
            # All sessions look, also those that would have stopped: their certificates are of one last look.
            return any([session.look(agreement) for session in sessions])

        n, agreement = self._agreement(
            tensor, mask, NoiseKey(seed, item, "estimation"), sizes, size, progress, more=wanted
        )
        listed = ", ".join(f"{tau:g}" for tau in taus)
        split = (
            f"One of {len(taus)} certificates from the same samples (tau {listed}): together they fail with {alpha:g}."
        )
        build = partial(
            certificate_from_agreement,
            mask.cpu().numpy(),
            agreement,
            item=item,
            num_classes=self.num_classes,
            n0=n0,
            n=n,
            correction=correction,
            k_fwer=k_fwer,
            sigma=self.sigma,
            seed=seed,
            shape=shape,
            device=str(self.device),
            dtype=arithmetic(self.model),
            model_id=self.model_id,
            intensity=intensity,
            scope=self.scope,
            space=self.space,
            notes=(split,) if len(taus) > 1 else (),
        )
        chosen = [session.record() for session in sessions] or [{}] * len(taus)
        return tuple(build(tau=float(tau), alpha=float(share), **own) for tau, share, own in zip(taus, shares, chosen))

    def _modes(self, image: Tensor, key: NoiseKey, n0: int, batch_size: int, progress: Progress | None) -> Tensor:
        """Most frequent class of each pixel over n0 samples, ties to the lowest class: small integers ``space``."""
        space = tuple(image.shape[1:])
        kind = torch.uint8 if n0 <= 255 else torch.int32
        votes = torch.zeros((self.num_classes, *space), dtype=kind, device=image.device)
        one = torch.ones((1, *space), dtype=kind, device=image.device)

        def vote(won: Tensor) -> None:
            for sample in won:
                votes.scatter_add_(0, sample.long().unsqueeze(0), one)

        self._sample(image, key, n0, batch_size, progress, vote)
        return winning_class(votes.unsqueeze(0)).squeeze(0)

    def _agreement(
        self,
        image: Tensor,
        mask: Tensor,
        key: NoiseKey,
        sizes: Sequence[int],
        batch_size: int,
        progress: Progress | None,
        more: Callable[[NDArray[np.integer[Any]]], bool],
    ) -> tuple[int, NDArray[np.integer[Any]]]:
        """How many of n samples agree with the mask at each pixel: n, and int16 or int32 ``space``.

        n is the first of the sizes after which no ``more`` is wanted, or the last.
        """
        agreement = torch.zeros(mask.shape, dtype=torch.int16 if sizes[-1] < 2**15 else torch.int32, device=mask.device)

        def compare(won: Tensor) -> None:
            for sample in won:
                agreement.add_(sample == mask)

        drawn = 0
        for n in sizes:
            self._sample(image, key, n - drawn, batch_size, progress, compare, start=drawn)
            drawn, counts = n, agreement.cpu().numpy()
            if not more(counts):
                break
        return drawn, counts

    def _sample(
        self,
        image: Tensor,
        key: NoiseKey,
        n: int,
        batch_size: int,
        progress: Progress | None,
        take: Callable[[Tensor], None],
        start: int = 0,
    ) -> None:
        """Hand the winning classes of n noisy copies, from the one at ``start``, to ``take``, and forget them."""
        finite = torch.ones((), dtype=torch.bool, device=image.device)
        with unchanged(image), torch.inference_mode():
            if self.one_answer is None:
                self.one_answer = one_answer(
                    self._two_scores,
                    image,
                    self.sigma,
                    NoiseKey(key.seed, key.item, "probe"),
                    batch_size=batch_size,
                    dtype=coarsest_dtype(self.model),
                )
            for batch in noisy_batches(image, self.sigma, key, n, batch_size=batch_size, start=start):
                scores = self._scores(batch)
                for extreme in torch.aminmax(scores):
                    finite &= torch.isfinite(extreme)
                take(winning_class(scores, self.binary_threshold))
                if progress is not None:
                    progress(len(batch))
        if not bool(finite):
            raise ModelError("the model returned scores that are not finite on noisy copies; no class can be counted")

    def _two_scores(self, batch: Tensor) -> Tensor:
        """Scores whose highest wins, where a threshold decides too."""
        scores = self._scores(batch)
        return scores if self.binary_threshold is None else threshold_scores(scores, self.binary_threshold)

    def _scores(self, batch: Tensor) -> Tensor:
        scores = self.model(batch)
        channels = 1 if self.binary_threshold is not None else self.num_classes
        wanted = (len(batch), channels, *batch.shape[2:])
        one_channel = (len(batch), 1, *batch.shape[2:])
        if isinstance(scores, Tensor) and tuple(scores.shape) == one_channel != wanted and self.num_classes == 2:
            raise ModelError(
                "the model returned one channel for two classes; state binary_threshold (0 for logits, 0.5 for "
                "probabilities)"
            )
        return check_scores(scores, wanted)
