"""The text encoder, linearised around an initial context: tuning steps become two matrix products.

``T(c0 + d) ~ T(c0) + J d`` for the normalised text features T of one class list. A base classifier of randomized
smoothing may be *any* fixed function of the noisy image, so a classifier that tunes itself through this approximation
loses nothing of its guarantee; only its accuracy depends on how good the approximation is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from certimed.errors import InputError
from certimed.prompts.learner import PromptLearner
from certimed.prompts.zero_shot import PUBLISHED_LR, PUBLISHED_STEPS, straight_through

_MAX_BYTES = 1 << 31
_BETAS = (0.9, 0.999)
_EPS = 1e-8


class LinearText:
    """Text features and their Jacobian at a learner's context, computed once for a class list.

    Set-up costs one forward pass and ``embedding_dim`` backward passes of the text encoder over the K prompts; the
    Jacobian takes ``4 K D M d`` bytes (K classes, D joint dimensions, M context tokens of width d).

    Attributes:
        text_features: float32 ``(K, D)``, normalised, at the initial context.
        jacobian: float32 ``(K, D, P)`` with ``P = M d`` context coordinates.
        per_class: whether each class moves its own context.
        logit_scale: the model's.
        identity: of the learner, see :attr:`PromptLearner.identity`.
    """

    def __init__(self, learner: PromptLearner, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Differentiate.

        Args:
            learner: class list and initial context; not changed.
            progress: called with (rows done, D).

        Raises:
            InputError: the Jacobian would take more than 2 GiB.
        """
        classes, width = len(learner.class_names), learner.vlm.embedding_dim
        size = 4 * classes * width * learner.length * learner.vlm.token_dim
        if size > _MAX_BYTES:
            raise InputError(
                f"the linearised text encoder would take {size / 2**30:.1f} GiB for {classes} classes and "
                f"{learner.length} context tokens; use a shorter context"
            )
        # One copy of the context a class: classes do not interact, so one backward pass serves all K at once.
        contexts = learner.context.detach().expand(classes, -1, -1).clone().requires_grad_()
        with torch.enable_grad():
            features = learner.features(contexts)
            rows = []
            for index in range(width):
                (row,) = torch.autograd.grad(features[:, index].sum(), contexts, retain_graph=True)
                rows.append(row.flatten(1))
                if progress is not None:
                    progress(index + 1, width)
        self.text_features = features.detach()
        self.jacobian = torch.stack(rows, dim=1)
        self.per_class = learner.per_class
        self.logit_scale = learner.vlm.logit_scale
        self.identity = learner.identity

    def tune(self, embeddings: Tensor, *, steps: int = PUBLISHED_STEPS, lr: float = PUBLISHED_LR) -> Tensor:
        """Entropy minimisation with AdamW's rule, for each row of a batch on its own.

        The published step (entropy of the mean probability over the row's T embeddings), through the linearised
        encoder, without weight decay; the first update is ``-lr * sign(gradient)``. Where the embeddings require a
        gradient, so does the result, by :func:`straight_through`.

        Args:
            embeddings: float ``(B, T, D)``, not normalised.
            steps, lr: of AdamW.

        Returns:
            float32 ``(B, K, D)``: each row's own text features, normalised.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and embeddings.requires_grad):
            return self._tune(functional.normalize(embeddings.float(), dim=-1), steps, lr)

    def _tune(self, images: Tensor, steps: int, lr: float) -> Tensor:
        features = self.text_features.expand(len(images), -1, -1)
        moved = first = second = torch.zeros((), device=images.device)
        for step in range(1, steps + 1):
            gradient = self._pull(self._feature_gradient(images, features))
            known = gradient.detach()
            first = _BETAS[0] * first + (1 - _BETAS[0]) * known
            second = _BETAS[1] * second + (1 - _BETAS[1]) * known.square()
            scale = (second / (1 - _BETAS[1] ** step)).sqrt_().add_(_EPS)
            update = lr * (first / (1 - _BETAS[0] ** step)) / scale
            moved = moved - (straight_through(update, lr, gradient) if gradient.requires_grad else update)
            features = self.text_features + self._push(moved)
        return functional.normalize(features, dim=-1)

    def _feature_gradient(self, images: Tensor, features: Tensor) -> Tensor:
        """Gradient of the entropy with respect to the text features, ``(B, K, D)``, in closed form."""
        probability = (self.logit_scale * images @ features.transpose(1, 2)).softmax(dim=-1)  # (B, T, K)
        slope = -(probability.mean(dim=1, keepdim=True).clamp_min(1e-30).log() + 1) / images.shape[1]
        by_logit = probability * (slope - (probability * slope).sum(dim=-1, keepdim=True))
        return self.logit_scale * by_logit.transpose(1, 2) @ images

    def _pull(self, gradient: Tensor) -> Tensor:
        """``J^T g``: ``(B, K, D)`` -> ``(B, P)``, or ``(K, B, P)`` with one context a class."""
        if self.per_class:
            return gradient.transpose(0, 1) @ self.jacobian
        return gradient.flatten(1) @ self.jacobian.flatten(0, 1)

    def _push(self, moved: Tensor) -> Tensor:
        """``J d``: the inverse direction of :meth:`_pull`, -> ``(B, K, D)``."""
        if self.per_class:
            return (moved @ self.jacobian.transpose(1, 2)).transpose(0, 1)
        pushed: Tensor = moved @ self.jacobian.flatten(0, 1).T
        return pushed.view(len(pushed), *self.text_features.shape)
