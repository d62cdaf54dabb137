"""Denoisers by name, and the guided-diffusion checkpoint against a forward pass written from its description."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from guided_diffusion_files import SMALL, random_checkpoint
from torch import Tensor, nn

from certimed.denoising import (
    GuidedDiffusionConfig,
    ModuleDenoiser,
    OneStepDenoiser,
    convert_guided_diffusion,
    load_denoiser,
    load_guided_diffusion,
)
from certimed.errors import InputError, ModelError

diffusers = pytest.importorskip("diffusers")


class Reference:
    """The guided-diffusion U-Net as the paper and its released code describe it, straight from a checkpoint's keys.

    Dhariwal & Nichol (2021), appendix on architecture: BigGAN residual blocks that resample, adaptive group
    normalisation, attention at several resolutions with a fixed number of channels a head.
    """

    def __init__(self, weights: dict[str, Tensor], config: GuidedDiffusionConfig) -> None:
        self.w, self.config = weights, config

    def __call__(self, x: Tensor, timestep: int) -> Tensor:
        config, levels = self.config, len(self.config.channel_mult)
        emb = self.time(timestep)
        skips = [h := self.conv("input_blocks.0.0", x, 1)]
        number = 1
        for level in range(levels):
            for _ in range(config.num_res_blocks):
                h = self.residual(f"input_blocks.{number}.0", h, emb)
                h = self.attention(f"input_blocks.{number}.1", h)
                skips.append(h)
                number += 1
            if level + 1 < levels:
                skips.append(h := self.residual(f"input_blocks.{number}.0", h, emb, "down"))
                number += 1
        h = self.residual("middle_block.0", h, emb)
        h = self.attention("middle_block.1", h)
        h = self.residual("middle_block.2", h, emb)
        for number in range(levels * (config.num_res_blocks + 1)):
            h = self.residual(f"output_blocks.{number}.0", torch.cat([h, skips.pop()], dim=1), emb)
            h = self.attention(f"output_blocks.{number}.1", h)
            last_of_level = number % (config.num_res_blocks + 1) == config.num_res_blocks
            if last_of_level and number + 1 < levels * (config.num_res_blocks + 1):
                place = next(i for i in (2, 1) if f"output_blocks.{number}.{i}.in_layers.0.weight" in self.w)
                h = self.residual(f"output_blocks.{number}.{place}", h, emb, "up")
        return self.conv("out.2", F.silu(self.norm("out.0", h)), 1)

    def time(self, timestep: int) -> Tensor:
        half = self.config.model_channels // 2
        angles = timestep * torch.tensor([math.exp(-math.log(10000) * i / half) for i in range(half)])
        h = torch.cat([angles.cos(), angles.sin()])[None]
        for name in ("time_embed.0", "time_embed.2"):
            h = F.linear(h, self.w[f"{name}.weight"], self.w[f"{name}.bias"])
            h = F.silu(h) if name.endswith("0") else h
        return h

    def conv(self, name: str, x: Tensor, padding: int) -> Tensor:
        return F.conv2d(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], padding=padding)

    def norm(self, name: str, x: Tensor) -> Tensor:
        groups = x.reshape(len(x), 32, -1)
        centred = groups - groups.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        shape = (1, -1, *[1] * (x.ndim - 2))
        return scaled.reshape(x.shape) * self.w[f"{name}.weight"].view(shape) + self.w[f"{name}.bias"].view(shape)

    def residual(self, name: str, x: Tensor, emb: Tensor, resample: str = "") -> Tensor:
        h = F.silu(self.norm(f"{name}.in_layers.0", x))
        if resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif resample == "up":
            h, x = (t.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) for t in (h, x))
        h = self.conv(f"{name}.in_layers.2", h, 1)
        film = F.linear(F.silu(emb), self.w[f"{name}.emb_layers.1.weight"], self.w[f"{name}.emb_layers.1.bias"])
        scale, shift = film[..., None, None].chunk(2, dim=1)
        h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        h = self.conv(f"{name}.out_layers.3", F.silu(h), 1)
        if f"{name}.skip_connection.weight" in self.w:
            x = self.conv(f"{name}.skip_connection", x, 0)
        return x + h

    def attention(self, name: str, x: Tensor) -> Tensor:
        if f"{name}.qkv.weight" not in self.w:
            return x
        flat = x.flatten(2)
        joint = F.conv1d(self.norm(f"{name}.norm", flat), self.w[f"{name}.qkv.weight"], self.w[f"{name}.qkv.bias"])
        width, outputs = self.config.head_channels, []
        for head in joint.split(3 * width, dim=1):
            query, key, value = head[:, :width], head[:, width : 2 * width], head[:, 2 * width :]
            weights = (query.transpose(1, 2) @ key / math.sqrt(width)).softmax(dim=-1)
            outputs.append(value @ weights.transpose(1, 2))
        answer = F.conv1d(torch.cat(outputs, 1), self.w[f"{name}.proj_out.weight"], self.w[f"{name}.proj_out.bias"])
        return x + answer.reshape(x.shape)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guided") / "small.pt"
    torch.save(random_checkpoint(SMALL), path)
    return path


@pytest.mark.parametrize("timestep", [0, 258, 999])
def test_guided_diffusion_agrees_with_its_description(checkpoint: Path, timestep: int) -> None:
    unet = load_guided_diffusion(checkpoint, SMALL)
    images = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = unet(images, timestep).sample
    reference = Reference(random_checkpoint(SMALL), SMALL)(images, timestep)
    assert ours.shape == (2, 6, 32, 24)
    assert float(reference.std()) > 0.1
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_full_size_guided_diffusion(tmp_path: Path) -> None:
    """The 256x256 unconditional architecture, 552.8 M parameters: loads through the public name, runs, and agrees."""
    config = GuidedDiffusionConfig()
    weights = random_checkpoint(config)
    assert sum(value.numel() for value in weights.values()) == 552_814_086
    path = tmp_path / "256x256_diffusion_uncond.pt"
    torch.save(weights, path)
    denoiser = load_denoiser(f"guided-diffusion:{path}")
    assert isinstance(denoiser, OneStepDenoiser)
    assert denoiser.options.tile == 256
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = denoiser.unet(images, 258).sample
        torch.testing.assert_close(ours, Reference(weights, config)(images, 258), atol=1e-4, rtol=0)
        assert denoiser.at(0.5)(torch.rand(1, 1, 60, 64)).shape == (1, 1, 60, 64)


def test_converted_checkpoint_is_the_same_denoiser(checkpoint: Path, tmp_path: Path) -> None:
    folder = convert_guided_diffusion(checkpoint, tmp_path / "converted", SMALL)
    assert json.loads((folder / "unet" / "config.json").read_text())["_class_name"] == "UNet2DModel"
    assert not list(folder.rglob("*.bin"))
    denoiser = load_denoiser(f"diffusers:{folder}")
    assert isinstance(denoiser, OneStepDenoiser)
    assert denoiser.options.prediction_type == "epsilon"
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    timestep, reference = denoiser.schedule.timestep_for_sigma(0.25), Reference(random_checkpoint(SMALL), SMALL)
    abar = denoiser.schedule.abar(timestep)
    state = math.sqrt(abar) * (2 * images - 1)
    noise = reference(state, timestep)[:, :3]
    clean = ((state - math.sqrt(1 - abar) * noise) / math.sqrt(abar)).clamp(-1, 1)
    torch.testing.assert_close(denoiser.at(0.25)(images), (clean + 1) / 2, atol=1e-4, rtol=0)


@pytest.mark.parametrize("change", ["unknown", "missing", "shape", "deeper"])
def test_a_checkpoint_that_does_not_map_is_refused(change: str, tmp_path: Path) -> None:
    weights = random_checkpoint(SMALL)
    match change:
        case "unknown":
            weights["label_emb.weight"] = torch.zeros(1000, 128)
        case "missing":
            del weights["middle_block.1.qkv.weight"]
        case "shape":
            weights["out.2.weight"] = weights["out.2.weight"][:3]
        case "deeper":
            weights["input_blocks.9.0.in_layers.0.weight"] = torch.zeros(64)
    path = tmp_path / "changed.pt"
    torch.save(weights, path)
    wanted = {
        "unknown": "label_emb.weight",
        "missing": r"3 missing \(mid_block.attentions.0.to_q.weight",
        "shape": r"1 of another shape \(conv_out.weight of shape \(3, 32, 3, 3\), not \(6, 32, 3, 3\)\)",
        "deeper": "input_blocks.9",
    }
    with pytest.raises(ModelError, match=wanted[change]):
        load_guided_diffusion(path, SMALL)


def test_a_pickled_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "object.pt"
    torch.save({"weights": nn.Linear(2, 2)}, path)
    with pytest.raises(ModelError, match="holds more than tensors"):
        load_guided_diffusion(path)
    torch.save([torch.zeros(2)], path)
    with pytest.raises(ModelError, match="dictionary of tensors"):
        load_guided_diffusion(path)
    with pytest.raises(InputError, match="there is no weights file"):
        load_denoiser(f"guided-diffusion:{tmp_path / 'absent.pt'}")


def small_pipeline(channels: int = 1, prediction_type: str = "v_prediction") -> object:
    unet = diffusers.UNet2DModel(
        sample_size=16, in_channels=channels, out_channels=channels, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, layers_per_block=1,
    )  # fmt: skip
    return diffusers.DDPMPipeline(unet, diffusers.DDIMScheduler(prediction_type=prediction_type))


@pytest.mark.parametrize("prefix", ["diffusers:", ""])
def test_a_folder_ddpm_pipeline_wrote(prefix: str, tmp_path: Path) -> None:
    pipeline = small_pipeline()
    pipeline.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    denoiser = load_denoiser(f"{prefix}{tmp_path}")
    assert isinstance(denoiser, OneStepDenoiser)
    assert denoiser.options.prediction_type == "v_prediction"
    assert denoiser.options.multiple == 2
    assert denoiser.options.tile == 16
    assert not any(parameter.requires_grad for parameter in denoiser.parameters())
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        timestep = denoiser.schedule.timestep_for_sigma(0.25)
        state = math.sqrt(denoiser.schedule.abar(timestep)) * (2 * images - 1)
        velocity = pipeline.unet(state, timestep).sample  # type: ignore[attr-defined]
        stepped = pipeline.scheduler  # type: ignore[attr-defined]
        stepped.set_timesteps(1000)
        clean = stepped.step(velocity, timestep, state).pred_original_sample
    torch.testing.assert_close(denoiser.at(0.25)(images), (clean.clamp(-1, 1) + 1) / 2, atol=1e-5, rtol=0)


def test_noise_beyond_what_was_trained_is_refused(tmp_path: Path) -> None:
    small_pipeline().save_pretrained(tmp_path)
    assert load_denoiser(tmp_path).at(2.0).sigma == 2.0
    (tmp_path / "certimed.json").write_text(json.dumps({"patch": 1, "max_sigma": 0.5}))
    denoiser = load_denoiser(tmp_path)
    assert denoiser.at(0.5).sigma == 0.5
    with pytest.raises(InputError, match=r"sigma=0\.6 is more noise than .*max_sigma=0\.5.*use sigma <= 0\.5"):
        denoiser.at(0.6)
    for content in ('{"max_sigma": -1}', '{"max_sigma": "x"}', "[]", '{"patch": 0}', "{"):
        (tmp_path / "certimed.json").write_text(content)
        with pytest.raises(InputError, match="restore the file"):
            load_denoiser(tmp_path)


def test_folders_that_are_no_denoiser(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is of no known form"):
        load_denoiser(tmp_path)
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_denoiser(f"diffusers:{tmp_path}")
    small_pipeline().unet.save_pretrained(tmp_path / "unet")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="scheduler"):
        load_denoiser(f"diffusers:{tmp_path}")
    small_pipeline(channels=2).save_pretrained(tmp_path / "two")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="takes 2 and answers 2 channels"):
        load_denoiser(f"diffusers:{tmp_path / 'two'}")


def test_modules_are_wrapped() -> None:
    denoiser = load_denoiser(nn.Identity())
    assert isinstance(denoiser, ModuleDenoiser)
    assert load_denoiser(denoiser) is denoiser
