"""Test-time tuning with a certificate for the whole pipeline: per-sample, and split into two views.

Both are ordinary randomized smoothing of a base classifier that does its own tuning, so an attacked image goes through
the tuning too, and the radius covers it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from certimed.budgets import Budget, as_budget
from certimed.certificates import ClassCertificate
from certimed.classification import certificate_from_counts, check_samples
from certimed.contract import OneAnswer, refuse_what_is_no_function, unchanged
from certimed.errors import InputError, ModelError
from certimed.noise import NoiseKey
from certimed.noise import item_id as content_id
from certimed.prompts.linear_text import LinearText
from certimed.prompts.zero_shot import PUBLISHED_LR, PUBLISHED_STEPS
from certimed.sampling import as_image, check_scores, check_sigma, noisy_batches, one_answer
from certimed.vlm.protocol import VisionLanguageModel

TwoViewModel = Callable[[Tensor, Tensor], Tensor]
"""(view to tune on, view to classify), each float32 ``(B, C, *space)`` -> scores ``(B, K)``."""

_ESTIMATION_START = 1 << 32  # selection and estimation share the first view's stream, at places that never meet


class PerSampleClassifier(nn.Module):
    """Tunes the prompt on the one noisy sample it is given, then classifies that sample.

    A function of the noisy image alone, hence a legal base classifier: certified with ``SmoothedClassifier`` its radius
    is ``sigma Phi^-1(p_lower)`` and its scope end-to-end (Cohen et al., ICML 2019, Theorem 1, whose base classifier is
    arbitrary).
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        linear: LinearText,
        *,
        steps: int = PUBLISHED_STEPS,
        lr: float = PUBLISHED_LR,
    ) -> None:
        """Keep the parts; ``linear`` must come from a learner of the same model."""
        super().__init__()
        self.vlm = vlm
        self.linear = linear
        self.steps = steps
        self.lr = lr

    def logits(self, image_features: Tensor) -> Tensor:
        """float ``(B, D)``, not normalised -> ``(B, K)``; each row is tuned on itself alone."""
        return self.view_logits(image_features.unsqueeze(1), image_features)

    def view_logits(self, tuned_on: Tensor, classified: Tensor) -> Tensor:
        """Tune on ``(B, T, D)``, classify ``(B, D)`` -> ``(B, K)``; in float32, under autocast too."""
        with torch.autocast(classified.device.type, enabled=False):
            text = self.linear.tune(tuned_on, steps=self.steps, lr=self.lr)
            images = functional.normalize(classified.float(), dim=-1)
            return self.vlm.logit_scale * (text @ images.unsqueeze(-1)).squeeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Images in the certified space ``(B, C, H, W)`` -> logits ``(B, K)``."""
        return self.logits(self.vlm.encode_image(x))

    def two_views(self, tuned_on: Tensor, classified: Tensor) -> Tensor:
        """Two noisy views ``(B, C, H, W)`` -> logits ``(B, K)``: a :data:`TwoViewModel`."""
        return self.view_logits(self.vlm.encode_image(tuned_on).unsqueeze(1), self.vlm.encode_image(classified))


class ViewSigmas(NamedTuple):
    """Noise of the two views; together they are worth one view of noise ``effective``."""

    tuned: float
    classified: float

    @property
    def effective(self) -> float:
        """``s`` with ``1/s^2 = 1/tuned^2 + 1/classified^2``."""
        return 1.0 / math.sqrt(self.tuned**-2 + self.classified**-2)


def split_sigmas(sigma: float, share: float = 0.5) -> ViewSigmas:
    """Split a certification noise level into two views, the first of which carries ``share`` of the information.

    ``1/tuned^2 = share / sigma^2`` and ``1/classified^2 = (1 - share) / sigma^2``: with ``share=0.5`` each view has
    ``sqrt(2) sigma``; a small share tunes on a noisier view and classifies a clearer one.
    """
    if not 0 < share < 1:
        raise InputError(f"share={share} must lie between 0 and 1, both excluded")
    level = check_sigma(sigma)
    return ViewSigmas(level / math.sqrt(share), level / math.sqrt(1 - share))


def view_batches(
    image: Tensor,
    sigmas: ViewSigmas,
    seed: int,
    item: str,
    phase: str,
    n: int,
    *,
    batch_size: int | None = None,
    start: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of independent noisy views, (tuned on, classified), each float32 ``(b, C, *space)``.

    The classified view uses the phase's own stream, the tuned one the stream "second-view".
    """
    place = start if phase == "selection" else _ESTIMATION_START + start
    tuned_key = NoiseKey(seed, item, "second-view")
    yield from zip(
        noisy_batches(image, sigmas.tuned, tuned_key, n, batch_size=batch_size, start=place),
        noisy_batches(image, sigmas.classified, NoiseKey(seed, item, phase), n, batch_size=batch_size, start=start),
        strict=True,
    )


class SplitSmoothedClassifier:
    """Smoothing of a classifier that tunes on one noisy view and classifies another.

    Guarantee: with probability at least ``1 - alpha`` over the noise, the smoothed class is constant for all
    ``||d||_2 < R = s Phi^-1(p_lower)``, ``1/s^2 = 1/s1^2 + 1/s2^2``, whatever the model does with the two views
    (adaptive randomized smoothing, Lyu et al., NeurIPS 2024; here the plain case: the pair
    ``(x/s1 + e1, x/s2 + e2)`` is one Gaussian view of ``x -> (x/s1, x/s2)``, which stretches distances by ``1/s``, so
    Cohen et al. 2019, Theorem 1 applies). Scope: end-to-end.

    Args:
        model: a :data:`TwoViewModel`.
        num_classes: K.
        sigma: effective noise level s, the one the radius is in units of.
        share: see :func:`split_sigmas`.
        device: where images and noise live.
        model_id: identity for the certificate's provenance.
    """

    def __init__(
        self,
        model: TwoViewModel,
        num_classes: int,
        sigma: float,
        *,
        share: float = 0.5,
        device: torch.device | str = "cpu",
        model_id: str | None = None,
    ) -> None:
        refuse_what_is_no_function(model)
        self.model = model
        self.num_classes = num_classes
        self.sigma = check_sigma(sigma)
        self.one_answer: OneAnswer | None = None
        self.sigmas = split_sigmas(sigma, share)
        self.device = torch.device(device)
        self.model_id = model_id

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
    ) -> ClassCertificate:
        """Certify one image; arguments as in ``SmoothedClassifier.certify``."""
        chosen = as_budget(budget, n)
        check_samples(n0=n0, n=chosen.cap, alpha=alpha)
        tensor = as_image(image, self.device)
        item = item_id if item_id is not None else content_id(tensor)
        with unchanged(tensor):
            if self.one_answer is None:
                self.one_answer = self._asked(tensor, NoiseKey(seed, item, "probe"), batch_size)
            selection = self._count(tensor, seed, item, "selection", 0, n0, batch_size)
            estimation, outcome = chosen.start(selection, alpha, self.sigma, bound).run(
                lambda start, more: self._count(tensor, seed, item, "estimation", start, more, batch_size)
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
            model_id=self.model_id,
            notes=(split_note(self.sigmas),),
        )

    def _asked(self, image: Tensor, key: NoiseKey, batch_size: int | None) -> OneAnswer:
        """Both views of a copy as one input of two images."""

        def scores(views: Tensor) -> Tensor:
            return check_scores(self.model(*views.unbind(1)), (len(views), self.num_classes))

        with torch.no_grad():
            return one_answer(scores, torch.stack([image, image]), self.sigmas.tuned, key, batch_size=batch_size)

    def _count(
        self, image: Tensor, seed: int, item: str, phase: str, start: int, n: int, batch_size: int | None
    ) -> NDArray[np.int64]:
        counts = torch.zeros(self.num_classes, dtype=torch.int64, device=image.device)
        with torch.no_grad():
            for views in view_batches(image, self.sigmas, seed, item, phase, n, batch_size=batch_size, start=start):
                scores = check_scores(self.model(*views), (len(views[0]), self.num_classes))
                if not bool(torch.isfinite(scores).all()):
                    raise ModelError("the model returned scores that are not finite; no class can be counted")
                counts += torch.bincount(scores.argmax(dim=1), minlength=self.num_classes)
        return counts.cpu().numpy()


def split_note(sigmas: ViewSigmas) -> str:
    """The sentence a split certificate carries."""
    return (
        f"The prompt is tuned on one noisy view (sigma {sigmas.tuned:.6g}) and another is classified (sigma "
        f"{sigmas.classified:.6g}), both redrawn in every sample; sigma is the effective one, "
        "1/s^2 = 1/s1^2 + 1/s2^2."
    )
