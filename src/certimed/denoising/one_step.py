"""Denoise with one step (or a few deterministic steps) of a diffusion model, in front of any classifier or segmenter.

Guarantee: the denoiser is a fixed function of the noisy image, so ``model(denoiser(x))`` is a legal base classifier of
randomized smoothing and the certificate of Cohen et al. (ICML 2019) or SegCertify (Fischer et al., ICML 2021) holds for
the pair as it does for the model alone. Sources: Carlini et al. (ICLR 2023) for classifiers, Laousy et al. (MICCAI
2023) for medical segmentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certimed.denoising.geometry import Tiling, pad_to_multiple
from certimed.denoising.schedule import NoiseSchedule
from certimed.errors import InputError, ModelError
from certimed.models.identity import adapter_identity, behaviour_digest, combined, libraries_of
from certimed.models.sources import brief

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def to_model_range(image: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1]: ``2 x - 1``. The only place where images enter the diffusion model's range."""
    return 2 * image - 1


def from_model_range(image: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1]: ``(y + 1) / 2``. The only place where images leave the diffusion model's range."""
    return (image + 1) / 2


def predicted_clean(prediction_type: str, output: Tensor, noisy: Tensor, abar: float) -> Tensor:
    """The clean image a diffusion model's output means, in the model's range, not clipped.

    ``noisy`` is ``x_t = sqrt(abar) y + sqrt(1 - abar) e``. The output is ``e`` (``"epsilon"``, Ho et al. 2020), ``y``
    (``"sample"``) or ``v = sqrt(abar) e - sqrt(1 - abar) y`` (``"v_prediction"``, Salimans & Ho 2022).

    Raises:
        InputError: unknown prediction type.
    """
    signal, noise = math.sqrt(abar), math.sqrt(1 - abar)
    if prediction_type == "sample":
        return output
    if prediction_type == "v_prediction":
        return signal * noisy - noise * output
    if prediction_type == "epsilon":
        if abar <= 0:
            raise InputError("an epsilon-predicting model says nothing about the image where abar_t = 0; lower sigma")
        return (noisy - noise * output) / signal
    raise InputError(f"prediction_type={prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")


@dataclass(frozen=True)
class DenoiserOptions:
    """How a diffusion U-Net is applied to images.

    Attributes:
        prediction_type: ``"epsilon"``, ``"sample"`` or ``"v_prediction"``.
        channels: image channels of the model, 1 or 3.
        patch: side of the pixel blocks folded into channels before the U-Net (1: none).
        multiple: sides are padded to a multiple of this many pixels.
        tile: side of the largest square denoised at once, or None: no limit. Larger images are tiled.
        overlap: pixels shared by neighbouring tiles, blended linearly.
        autocast: dtype the U-Net runs in under autocast, whatever runs behind it; None: as the model it is part of,
            float32 unless that is accelerated. Noise and scaling stay float32; the model that is certified is the one
            that ran, so the dtype belongs to its identity and to the provenance.
    """

    prediction_type: str = "epsilon"
    channels: int = 3
    patch: int = 1
    multiple: int = 8
    tile: int | None = None
    overlap: int = 32
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise InputError(f"prediction_type={self.prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")
        if self.channels not in (1, 3):
            raise InputError(f"channels={self.channels}: a denoiser takes images of 1 or 3 channels")
        if self.patch < 1 or self.multiple < 1 or self.multiple % self.patch:
            raise InputError(f"multiple={self.multiple} must be a positive multiple of patch={self.patch}")
        if self.tile is not None and (self.tile % self.multiple or not 0 <= self.overlap < self.tile):
            raise InputError(
                f"tile={self.tile} must be a multiple of {self.multiple} and larger than overlap={self.overlap}"
            )


class OneStepDenoiser(nn.Module):
    """A diffusion U-Net with its schedule; :meth:`at` fixes the noise level and gives a module on images.

    Args:
        unet: called as ``unet(x_t, timestep)`` with ``x_t`` float32 ``(B, c, h, w)`` and ``timestep`` an int64 scalar
            tensor; answers a tensor or an object with ``.sample``, of ``c`` channels, or ``2 c`` where the second half
            is a learned variance (dropped).
        schedule: the model's noise schedule.
        options: see :class:`DenoiserOptions`.
        max_sigma: largest noise level the model was trained for, in [0, 1] image units, or None where it is not known;
            :meth:`at` refuses more.
        configuration: for adapters: what built network and schedule, where that and the weights decide all it answers;
            processors round a schedule's values each in their own way. Without it the network's code is walked, and
            the identity not declared complete.
        libraries: distributions that built the network; default: found from its classes.
        notes: what a loader had to decide, in sentences to show.

    Attributes:
        identity: hex SHA-256 over weights, schedule and options, as they were when this object was made; the denoiser
            at a noise level has one of its own.
        identity_complete: whether equal identities are declared to mean equal answers.
        libraries, notes: as given.
    """

    def __init__(
        self,
        unet: nn.Module,
        schedule: NoiseSchedule,
        options: DenoiserOptions | None = None,
        max_sigma: float | None = None,
        *,
        configuration: Mapping[str, Any] | None = None,
        libraries: Sequence[str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.max_sigma = max_sigma
        self.unet = unet.eval().requires_grad_(False)
        self.schedule = schedule
        self.options = options or DenoiserOptions()
        self.libraries = tuple(libraries_of(unet) if libraries is None else libraries)
        self.notes = tuple(notes)
        # A configuration names the schedule.
        about = {"options": self.options} | ({"schedule": schedule} if configuration is None else {})
        self.identity, self.identity_complete = adapter_identity(unet, about, configuration)

    def with_source(self, digest: str) -> OneStepDenoiser:
        """This denoiser as code has left it, with the digest of that code in its :attr:`identity`."""
        about = {"schedule": self.schedule, "options": self.options, "source": digest}
        self.identity, self.identity_complete = behaviour_digest(self.unet, about), False
        return self

    def at(self, sigma: float, steps: int = 1) -> DenoiserAt:
        """The denoiser for noise of standard deviation ``sigma`` (in [0, 1] image units).

        Args:
            sigma: noise level; its timestep is the nearest one of the schedule.
            steps: 1 for the one-step prediction; more for deterministic DDIM steps (Song et al., ICLR 2021) at equal
                distances from that timestep down to 0. Deterministic, so the base classifier remains a function.

        Raises:
            InputError: sigma is not positive, or is beyond the schedule or what the model was trained for; steps < 1.
        """
        if self.max_sigma is not None and sigma > self.max_sigma * (1 + 1e-6):
            raise InputError(
                f"sigma={sigma:g} is more noise than this denoiser was trained for (max_sigma={self.max_sigma:g}); use "
                f"sigma <= {self.max_sigma:g}, or train one with: certimed train denoiser --max-sigma {sigma:g}"
            )
        return DenoiserAt(self, sigma, steps)

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        """``self.at(sigma)(x)``."""
        clean: Tensor = self.at(sigma)(x)
        return clean

    @property
    def arithmetic(self) -> str | None:
        """A precision of its own, or None; see :func:`certimed.engine.acceleration.arithmetic`."""
        kind = self.options.autocast
        return None if kind is None else f"{str(kind).removeprefix('torch.')} autocast"

    def extra_repr(self) -> str:
        return f"{self.schedule!r}, {self.options!r}"

    def predict(self, noisy: Tensor, timestep: int) -> Tensor:
        """Clean image ``(B, c, H, W)`` in [-1, 1] from ``x_t``; one U-Net call for the whole batch.

        Raises:
            ModelError: the U-Net's answer has the wrong shape.
        """
        options = self.options
        folded = F.pixel_unshuffle(noisy, options.patch)
        moment = torch.tensor(timestep, dtype=torch.int64, device=noisy.device)
        own = nullcontext() if options.autocast is None else torch.autocast(noisy.device.type, options.autocast)
        with own:
            answer: Any = self.unet(folded, moment)
        output: Tensor = answer if isinstance(answer, Tensor) else answer.sample
        output = output.float()
        channels = folded.shape[1]
        if output.shape[1] == 2 * channels:
            output = output[:, :channels]
        if output.shape != folded.shape:
            raise ModelError(
                f"the denoiser's network answered shape {tuple(output.shape)} to an input of {tuple(folded.shape)}; "
                f"check channels={options.channels}, patch={options.patch} and multiple={options.multiple}"
            )
        clean = predicted_clean(options.prediction_type, output, folded, self.schedule.abar(timestep))
        return F.pixel_shuffle(clean.clamp(-1, 1), options.patch)


class DenoiserAt(nn.Module):
    """``x -> x`` on images in [0, 1] with noise of a fixed sigma: ``(B, C, H, W)``, or ``(B, C, D, H, W)`` slice-wise.

    Channels: images with the model's own number pass as they are. One channel through a 3-channel model is repeated
    and the answer averaged. Several channels through a 1-channel model are denoised each by itself, which is exact for
    the noise (independent between channels) and ignores what channels share. Anything else is refused.

    Sizes: sides are padded after the noise (reflected, or with the border value where the image is smaller than the
    padding), never resized, because resizing changes the noise level. Larger images than the model's are tiled.

    Attributes:
        identity, identity_complete: of the denoiser at this sigma with these steps.
    """

    def __init__(self, denoiser: OneStepDenoiser, sigma: float, steps: int = 1) -> None:
        super().__init__()
        if steps < 1:
            raise InputError(f"steps={steps} must be at least 1")
        self.denoiser = denoiser
        self.sigma = float(sigma)
        self.timestep = denoiser.schedule.timestep_for_sigma(sigma)
        distinct = {round(self.timestep * (steps - k) / steps) for k in range(steps)}
        self.timesteps = tuple(sorted(distinct, reverse=True))
        self.identity = combined("denoiser at", denoiser.identity, self.sigma, self.timesteps)
        self.identity_complete = denoiser.identity_complete

    def extra_repr(self) -> str:
        return f"sigma={self.sigma:g}, timesteps={self.timesteps}"

    def forward(self, x: Tensor) -> Tensor:
        """Denoise ``x`` (float32, [0, 1] plus noise, not clipped); same shape out, in [0, 1].

        Raises:
            InputError: ``x`` has neither 4 nor 5 dimensions, or channels the model cannot take.
        """
        if x.ndim == 5:
            batch, channels, depth, height, width = x.shape
            slices = x.transpose(1, 2).reshape(batch * depth, channels, height, width)
            clean: Tensor = self.forward(slices)
            return clean.reshape(batch, depth, channels, height, width).transpose(1, 2)
        if x.ndim != 4:
            raise InputError(f"a denoiser takes (B, C, H, W) or (B, C, D, H, W), got shape {tuple(x.shape)}")
        wanted, channels = self.denoiser.options.channels, x.shape[1]
        if channels == wanted:
            return self._images(x)
        if channels == 1:
            return self._images(x.expand(-1, wanted, -1, -1)).mean(dim=1, keepdim=True)
        if wanted == 1:
            return self._images(x.reshape(-1, 1, *x.shape[2:])).reshape(x.shape)
        raise InputError(
            f"this denoiser takes images of {wanted} channels or 1, got {channels} (shape {tuple(x.shape)})"
        )

    def _images(self, x: Tensor) -> Tensor:
        options = self.denoiser.options
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, options.multiple)
        if options.tile is None or max(padded.shape[-2:]) <= options.tile:
            clean = self._tile(padded)
        else:
            tiling = Tiling(int(padded.shape[-2]), int(padded.shape[-1]), options.tile, options.overlap)
            clean = tiling.apply(self._tile, padded)
        return clean[..., :height, :width]

    def _tile(self, x: Tensor) -> Tensor:
        """DDIM from the timestep of sigma down; with one timestep this is the one-step prediction."""
        schedule = self.denoiser.schedule
        state = math.sqrt(schedule.abar(self.timestep)) * to_model_range(x)
        clean = self.denoiser.predict(state, self.timesteps[0])
        for now, following in zip(self.timesteps, self.timesteps[1:]):
            abar, abar_next = schedule.abar(now), schedule.abar(following)
            noise = (state - math.sqrt(abar) * clean) / math.sqrt(1 - abar)
            state = math.sqrt(abar_next) * clean + math.sqrt(1 - abar_next) * noise
            clean = self.denoiser.predict(state, following)
        return from_model_range(clean)


class ModuleDenoiser(nn.Module):
    """Any ``nn.Module`` that maps noisy images to clean ones of the same shape (DnCNN style), as a denoiser.

    Args:
        module: called on float32 ``(B, C, *space)`` in [0, 1] plus noise; its answer is clipped to [0, 1].
        sigma: the noise level the module was trained for, or None if it serves any; :meth:`at` refuses another level.
        configuration: for adapters: what decides all the module answers, beside its weights. Without it the module's
            code is walked, and the identity not declared complete.
        libraries: distributions that built the module; default: found from its classes.
        notes: what a loader had to decide, in sentences to show.

    Attributes:
        identity: hex SHA-256 over the module (:func:`certimed.models.behaviour_digest`) and ``sigma``.
        identity_complete: whether equal identities are declared to mean equal answers; False of someone's code.
        libraries, notes: as given.
    """

    def __init__(
        self,
        module: nn.Module,
        sigma: float | None = None,
        *,
        configuration: Mapping[str, Any] | None = None,
        libraries: Sequence[str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.module = module.eval().requires_grad_(False)
        self.sigma = sigma
        self.libraries = tuple(libraries_of(module) if libraries is None else libraries)
        self.notes = tuple(notes)
        self.identity, self.identity_complete = adapter_identity(module, {"sigma": sigma}, configuration)

    def with_source(self, digest: str) -> ModuleDenoiser:
        """This denoiser as code has left it, with the digest of that code in its :attr:`identity`."""
        self.identity = behaviour_digest(self.module, {"sigma": self.sigma, "source": digest})
        self.identity_complete = False
        return self

    def at(self, sigma: float, steps: int = 1) -> nn.Module:
        """The module itself, clipped; ``steps`` must be 1.

        Raises:
            InputError: ``steps`` is not 1, or ``sigma`` is not the level the module was trained for.
        """
        if steps != 1:
            raise InputError(f"steps={steps}: a plain denoiser takes one step")
        if self.sigma is not None and abs(sigma - self.sigma) > 1e-6 * max(sigma, self.sigma):
            raise InputError(f"this denoiser was trained for sigma={self.sigma:g}, not {sigma:g}")
        return _Clipped(self, combined("denoiser at", self.identity, float(sigma)))

    def forward(self, x: Tensor) -> Tensor:
        """The denoised images, clipped to [0, 1]."""
        clean: Tensor = _Clipped(self, self.identity)(x)
        return clean


class _Clipped(nn.Module):
    def __init__(self, denoiser: ModuleDenoiser, identity: str) -> None:
        super().__init__()
        self.module = denoiser.module
        self.identity, self.identity_complete = identity, denoiser.identity_complete

    def forward(self, x: Tensor) -> Tensor:
        try:
            clean: Any = self.module(x)
        except ModelError:
            raise
        # The module is anyone's, and may raise anything, most often at channels it was not made for.
        except Exception as error:
            raise ModelError(
                f"the denoiser fails on images of {tuple(x.shape)} ({type(error).__name__}: {brief(error)}); check its "
                "channels"
            ) from error
        if not isinstance(clean, Tensor) or clean.shape != x.shape:
            got = tuple(clean.shape) if isinstance(clean, Tensor) else type(clean).__name__
            raise ModelError(f"the denoiser answered {got} to images of {tuple(x.shape)}; it must return their shape")
        return clean.float().clamp(0, 1)
