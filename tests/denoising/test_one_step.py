"""One-step denoising against the exact posterior mean, and what is done with channels, sizes, batches and steps.

For images whose pixels are independent N(m, s^2), the posterior mean given x + sigma e is
``(s^2 x_noisy + sigma^2 m) / (s^2 + sigma^2)``. An analytic network that answers the matching noise, image or velocity
at its timestep must give exactly that through every prediction type: t, scaling and range are right or the test fails.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from certimed.denoising import Compose, DenoiserOptions, ModuleDenoiser, NoiseSchedule, OneStepDenoiser
from certimed.denoising.geometry import Tiling, pad_to_multiple, tile_starts
from certimed.errors import InputError, ModelError

SCHEDULE = NoiseSchedule.linear()
MEAN, SPREAD = 0.45, 0.02


class GaussianUNet(nn.Module):
    """The ideal diffusion network for pixels N(MEAN, SPREAD^2) in [0, 1], in any parametrisation."""

    def __init__(self, prediction_type: str, learned_variance: bool = False) -> None:
        super().__init__()
        self.prediction_type, self.learned_variance = prediction_type, learned_variance
        self.calls: list[tuple[tuple[int, ...], int]] = []

    def forward(self, noisy: Tensor, timestep: Tensor) -> Tensor:
        self.calls.append((tuple(noisy.shape), int(timestep)))
        abar = SCHEDULE.abar(int(timestep))
        mean, variance = 2 * MEAN - 1, (2 * SPREAD) ** 2
        gain = math.sqrt(abar) * variance / (abar * variance + 1 - abar)
        clean = mean + gain * (noisy - math.sqrt(abar) * mean)
        noise = (noisy - math.sqrt(abar) * clean) / math.sqrt(1 - abar)
        velocity = math.sqrt(abar) * noise - math.sqrt(1 - abar) * clean
        answer = {"sample": clean, "epsilon": noise, "v_prediction": velocity}[self.prediction_type]
        return torch.cat([answer, 7 * torch.ones_like(answer)], dim=1) if self.learned_variance else answer


def gaussian(prediction_type: str = "epsilon", learned_variance: bool = False, **options: int) -> OneStepDenoiser:
    settings = DenoiserOptions(prediction_type=prediction_type, **{"channels": 1, **options})
    return OneStepDenoiser(GaussianUNet(prediction_type, learned_variance), SCHEDULE, settings)


def noisy_images(sigma: float, shape: tuple[int, ...] = (4, 1, 16, 24)) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return MEAN + SPREAD * torch.randn(shape, generator=rng) + sigma * torch.randn(shape, generator=rng)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("learned_variance", [False, True])
@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5, 1.0])
def test_exact_posterior_mean(prediction_type: str, learned_variance: bool, sigma: float) -> None:
    noisy = noisy_images(sigma)
    level = SCHEDULE.sigma(SCHEDULE.timestep_for_sigma(sigma))
    wanted = (SPREAD**2 * noisy + level**2 * MEAN) / (SPREAD**2 + level**2)
    cleaned = gaussian(prediction_type, learned_variance).at(sigma)(noisy)
    torch.testing.assert_close(cleaned, wanted, atol=2e-6, rtol=0)
    exact = (SPREAD**2 * noisy + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)
    torch.testing.assert_close(cleaned, exact, atol=2e-4, rtol=0)


def test_range_and_noise_factor_matter() -> None:
    """The published mistake (images in [0, 1] given to a [-1, 1] model, no factor 2) is far from the posterior mean."""
    sigma = 0.5
    noisy = noisy_images(sigma)
    exact = (SPREAD**2 * noisy + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)
    timestep = int(abs(SCHEDULE.alphas_cumprod - 1 / (1 + sigma**2)).argmin())
    mistaken = gaussian().predict(math.sqrt(SCHEDULE.abar(timestep)) * noisy, timestep)
    assert float((mistaken - exact).abs().mean()) > 0.1


def test_one_network_call_serves_a_batch() -> None:
    denoiser = gaussian()
    denoiser.at(0.5)(noisy_images(0.5, (32, 1, 16, 16)))
    assert isinstance(denoiser.unet, GaussianUNet)
    assert denoiser.unet.calls == [((32, 1, 16, 16), 258)]


def test_answers_stay_in_the_unit_range() -> None:
    answer = gaussian("sample").at(0.5)(torch.full((1, 1, 8, 8), 1000.0))
    assert float(answer.max()) <= 1.0
    assert float(answer.min()) >= 0.0


def test_a_batch_is_denoised_image_by_image() -> None:
    noisy = noisy_images(0.25)
    at = gaussian().at(0.25)
    torch.testing.assert_close(at(noisy), torch.cat([at(image[None]) for image in noisy]))


class Identity(nn.Module):
    """An x0-predicting network that answers its own input, rescaled: denoising leaves the image as it is."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.scale = math.sqrt(SCHEDULE.abar(SCHEDULE.timestep_for_sigma(sigma)))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, noisy: Tensor, timestep: Tensor) -> Tensor:
        self.shapes.append(tuple(noisy.shape))
        return noisy / self.scale


def identity(**options: int) -> OneStepDenoiser:
    settings = DenoiserOptions(prediction_type="sample", **{"channels": 1, **options})
    return OneStepDenoiser(Identity(0.5), SCHEDULE, settings)


@pytest.mark.parametrize("size", [(8, 8), (13, 40), (64, 64), (65, 31), (3, 5)])
@pytest.mark.parametrize(
    "options", [{}, {"patch": 4}, {"tile": 32, "overlap": 8}, {"tile": 32, "overlap": 0, "patch": 2}]
)
def test_any_size_keeps_its_pixels(size: tuple[int, int], options: dict[str, int]) -> None:
    images = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(identity(**options).at(0.5)(images), images, atol=1e-6, rtol=0)


def test_large_images_are_tiled_and_small_ones_padded() -> None:
    denoiser = identity(tile=32, overlap=8)
    denoiser.at(0.5)(torch.rand(2, 1, 50, 30))
    assert isinstance(denoiser.unet, Identity)
    assert denoiser.unet.shapes == [(2, 1, 32, 32)] * 2


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(32, 32, 8), (33, 32, 8), (57, 32, 8), (200, 64, 32), (96, 32, 0)]
)
def test_tiles_cover_and_overlap(length: int, tile: int, overlap: int) -> None:
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + min(tile, length) == length
    assert all(0 < b - a <= tile - overlap for a, b in pairwise(starts))


def test_tiles_are_blended_without_seams() -> None:
    """Tiles that disagree by a constant are joined by a ramp: no step larger than the disagreement over the overlap."""
    numbers = iter(range(100))
    joined = Tiling(16, 80, 32, 16).apply(lambda x: torch.full_like(x, float(next(numbers))), torch.zeros(1, 1, 16, 80))
    assert float(joined[0, 0].diff(dim=-1).abs().max()) < 0.12
    assert float(joined.max()) == pytest.approx(3.0)


def test_padding_keeps_the_noise_level() -> None:
    noise = torch.randn(1, 1, 60, 60, generator=torch.Generator().manual_seed(0))
    padded = pad_to_multiple(noise, 64)
    assert padded.shape[-2:] == (64, 64)
    assert float(padded[..., 60:, :].std()) == pytest.approx(1.0, abs=0.15)
    assert pad_to_multiple(padded, 64) is padded


def test_grey_images_through_a_colour_model() -> None:
    noisy = noisy_images(0.25)
    colour = OneStepDenoiser(GaussianUNet("epsilon"), SCHEDULE, DenoiserOptions(channels=3))
    torch.testing.assert_close(colour.at(0.25)(noisy), gaussian().at(0.25)(noisy))


def test_colour_images_through_a_grey_model() -> None:
    noisy = noisy_images(0.25, (2, 3, 16, 16))
    answer = gaussian().at(0.25)(noisy)
    for channel in range(3):
        alone = gaussian().at(0.25)(noisy[:, channel : channel + 1])
        torch.testing.assert_close(answer[:, channel : channel + 1], alone)


def test_other_channels_are_refused() -> None:
    colour = OneStepDenoiser(GaussianUNet("epsilon"), SCHEDULE, DenoiserOptions(channels=3))
    with pytest.raises(InputError, match="3 channels or 1, got 2"):
        colour.at(0.25)(torch.rand(1, 2, 8, 8))
    with pytest.raises(InputError, match=r"\(B, C, H, W\)"):
        colour.at(0.25)(torch.rand(3, 8, 8))


def test_volumes_are_denoised_slice_by_slice() -> None:
    volume = noisy_images(0.25, (2, 1, 5, 16, 16))
    answer = gaussian().at(0.25)(volume)
    assert answer.shape == volume.shape
    torch.testing.assert_close(answer[:, :, 3], gaussian().at(0.25)(volume[:, :, 3]))


def ddim_gain(timesteps: tuple[int, ...]) -> float:
    """For Gaussian pixels every deterministic step is affine; the slope of the whole path, from the text of DDIM."""
    variance, slope = (2 * SPREAD) ** 2, math.sqrt(SCHEDULE.abar(timesteps[0]))
    for now, following in zip(timesteps, (*timesteps[1:], None)):
        abar = SCHEDULE.abar(now)
        clean = math.sqrt(abar) * variance / (abar * variance + 1 - abar)
        noise = (1 - math.sqrt(abar) * clean) / math.sqrt(1 - abar)
        if following is None:
            return slope * clean
        slope *= math.sqrt(SCHEDULE.abar(following)) * clean + math.sqrt(1 - SCHEDULE.abar(following)) * noise
    raise AssertionError


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_several_steps(prediction_type: str, steps: int) -> None:
    at = gaussian(prediction_type).at(0.5, steps=steps)
    assert at.timesteps[0] == 258
    assert len(at.timesteps) == steps
    assert all(a > b > 0 for a, b in pairwise(at.timesteps))
    noisy = noisy_images(0.5)
    wanted = MEAN + ddim_gain(at.timesteps) * (noisy - MEAN)
    torch.testing.assert_close(at(noisy), wanted, atol=5e-6, rtol=0)
    assert torch.equal(at(noisy), at(noisy))


def test_bad_options_name_the_argument() -> None:
    with pytest.raises(InputError, match="prediction_type"):
        DenoiserOptions(prediction_type="score")
    with pytest.raises(InputError, match="channels=4"):
        DenoiserOptions(channels=4)
    with pytest.raises(InputError, match="tile=30"):
        DenoiserOptions(tile=30)
    with pytest.raises(InputError, match="multiple=6"):
        DenoiserOptions(multiple=6, patch=4)
    with pytest.raises(InputError, match="steps=0"):
        gaussian().at(0.5, steps=0)


def test_a_network_of_the_wrong_shape_is_named() -> None:
    broken = OneStepDenoiser(nn.Identity(), SCHEDULE, DenoiserOptions(channels=1))
    broken.unet.forward = lambda x, t: x[:, :, 1:]  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="check channels=1"):
        broken.at(0.5)(torch.rand(1, 1, 8, 8))


def test_autocast_changes_little() -> None:
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        8, 1, 1, block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    images = torch.rand(2, 1, 16, 16)
    full = OneStepDenoiser(unet, SCHEDULE, DenoiserOptions("v_prediction", 1, multiple=2)).at(0.25)(images)
    options = DenoiserOptions("v_prediction", 1, multiple=2, autocast=torch.bfloat16)
    half = OneStepDenoiser(unet, SCHEDULE, options).at(0.25)(images)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.02, rtol=0)
    assert not torch.equal(half, full)


def test_plain_modules() -> None:
    denoiser = ModuleDenoiser(nn.Hardtanh(-5.0, 5.0), sigma=0.25)
    answer = denoiser.at(0.25)(torch.tensor([[[[-1.0, 0.5, 2.0]]]]))
    torch.testing.assert_close(answer, torch.tensor([[[[0.0, 0.5, 1.0]]]]))
    with pytest.raises(InputError, match=r"trained for sigma=0.25, not 0.5"):
        denoiser.at(0.5)
    with pytest.raises(InputError, match="steps=2"):
        denoiser.at(0.25, steps=2)
    with pytest.raises(ModelError, match="must return their shape"):
        ModuleDenoiser(nn.AvgPool2d(2))(torch.rand(1, 1, 8, 8))


def test_compose_in_front_of_classifiers_and_segmenters() -> None:
    at = gaussian().at(0.25)
    noisy = noisy_images(0.25, (2, 1, 16, 16))
    segmenter = Compose(at, nn.Conv2d(1, 3, 1))
    classifier = Compose(at, nn.Sequential(nn.Flatten(), nn.Linear(256, 5)))
    assert segmenter(noisy).shape == (2, 3, 16, 16)
    assert classifier(noisy).shape == (2, 5)
    torch.testing.assert_close(segmenter(noisy), segmenter.model(at(noisy)))
    assert "sigma=0.25" in repr(segmenter)
    assert "Conv2d" in repr(segmenter)
