"""Test-time tuning with a certificate for the whole pipeline: per-sample, and split into two views.

Both are ordinary randomized smoothing of a base classifier that does its own tuning, so an attacked image goes through
the tuning too, and the radius covers it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from certimed.engine import check_sigma
from certimed.errors import InputError
from certimed.prompts.linear_text import LinearText
from certimed.prompts.zero_shot import PUBLISHED_LR, PUBLISHED_STEPS
from certimed.vlm.protocol import VisionLanguageModel


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


class ViewSigmas(NamedTuple):
    """Noise of the two views; together they are worth one view of noise ``effective``.

    Guarantee: with the pair ``(x/s1 + e1, x/s2 + e2)`` as one Gaussian view of ``x -> (x/s1, x/s2)``, which stretches
    distances by ``1/s``, ``1/s^2 = 1/s1^2 + 1/s2^2``, Cohen et al. 2019, Theorem 1 gives the radius
    ``s Phi^-1(p_lower)``, whatever the model does with the two views (adaptive randomized smoothing, Lyu et al.,
    NeurIPS 2024; here the plain case). Scope: end-to-end.
    """

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
