"""A denoiser in front of a model is a model."""

from __future__ import annotations

from torch import Tensor, nn

from certimed.models.identity import combined, identity_of, is_complete


class Compose(nn.Module):
    """``model(denoiser(x))``: a denoiser fixed at one noise level, then any classifier or segmenter.

    The pair is a function of the noisy image, hence a legal base classifier of randomized smoothing: its certificate is
    that of the pair, with the same bound (Salman et al., NeurIPS 2020; Carlini et al., ICLR 2023).

    Args:
        denoiser: ``x -> x`` on ``(B, C, *space)``, e.g. ``load_denoiser(...).at(sigma)``.
        model: ``x -> scores``, ``(B, K)`` or ``(B, K, *space)``, on images in [0, 1].

    Attributes:
        identity, identity_complete: of the pair, as they were when this object was made.
    """

    def __init__(self, denoiser: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.model = model
        self.identity = combined("denoised", identity_of(denoiser), identity_of(model))
        self.identity_complete = is_complete(denoiser) and is_complete(model)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the denoised images; one call of the denoiser and one of the model for the whole batch."""
        scores: Tensor = self.model(self.denoiser(x))
        return scores
