"""Noise schedules, one-step diffusion denoisers, and how to load, convert, train and compose them.

Example::

    denoiser = load_denoiser("diffusers:my_denoiser")
    model = Compose(denoiser.at(sigma=0.5), segmenter)   # (B, C, H, W) -> (B, K, H, W)
"""

from certimed.denoising.compose import Compose
from certimed.denoising.guided_diffusion import GuidedDiffusionConfig, convert_guided_diffusion, load_guided_diffusion
from certimed.denoising.loading import load_denoiser, wrap_unet
from certimed.denoising.one_step import DenoiserAt, DenoiserOptions, ModuleDenoiser, OneStepDenoiser
from certimed.denoising.schedule import NoiseSchedule, timestep_for_sigma
from certimed.denoising.training import DenoiserTraining, train_denoiser

__all__ = [
    "Compose",
    "DenoiserAt",
    "DenoiserOptions",
    "DenoiserTraining",
    "GuidedDiffusionConfig",
    "ModuleDenoiser",
    "NoiseSchedule",
    "OneStepDenoiser",
    "convert_guided_diffusion",
    "load_denoiser",
    "load_guided_diffusion",
    "timestep_for_sigma",
    "train_denoiser",
    "wrap_unet",
]
