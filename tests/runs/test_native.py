"""Certifying at native resolution: the resize is part of the model, the noise is not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_helper import call
from PIL import Image
from tiny_runs import class_spec, full_run, mask_spec, write_images, write_scans
from torch import Tensor, nn
from torch.nn import functional
from toys import CLASS_NAMES, TinyVLM, threshold

from certimed import ClassificationModel, DataSpec, SmoothedClassifier, SmoothedSegmenter
from certimed.assets import asset
from certimed.certificates import MODEL_INPUT, NATIVE, ClassCertificate
from certimed.data import MedicalImage, open_dataset
from certimed.engine import Scores
from certimed.errors import InputError
from certimed.operators import axis_matrix, norm_bound
from certimed.prompts import PromptComparison, prompt_methods
from certimed.runs import RunFolder, load_job
from certimed.segmenters import NativeSegmenter, mask_geometry
from certimed.vlm import NativeModel, PromptedClassifier


class Linear(nn.Module):
    """Scores ``[0, w.x + b]``."""

    def __init__(self, weight: Tensor, offset: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight.flatten() + self.offset
        return torch.stack([torch.zeros_like(score), score], dim=1)


class Bright(nn.Module):
    """Two classes: is the pixel brighter than one half?"""

    def forward(self, x: Tensor) -> Tensor:
        return threshold(x)


def linear_model(size: tuple[int, int] = (6, 5)) -> ClassificationModel:
    weight = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    return ClassificationModel(Linear(weight, -0.1), input_shape=(1, *size))


def certified_natively(model: ClassificationModel, x: Tensor, sigma: float, **settings: Any) -> ClassCertificate:
    found = PromptComparison(NativeModel(model), [Scores("plain", 2)], sigma).certify(x, seed=5, **settings)
    return found["plain"]


@pytest.mark.parametrize("shape", [(1, 13, 9), (1, 4, 4), (3, 6, 5)])
def test_batches_are_prepared_as_single_images_are(shape: tuple[int, int, int]) -> None:
    model = linear_model()
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([model.preprocess(one) for one in x])
    assert torch.equal(NativeModel(model).prepare(x), expected)
    assert torch.equal(NativeModel(model)(x), model(expected))


def test_a_model_that_describes_no_geometry_is_prepared_image_by_image() -> None:
    vlm = TinyVLM()
    x = torch.rand(2, *vlm.input_shape, generator=torch.Generator().manual_seed(1))
    assert vlm.geometry((1, 4, 4)) is None
    assert torch.equal(NativeModel(vlm)(x), vlm.encode_image(x))


def test_it_is_another_function_and_stays_in_eval_mode() -> None:
    model = linear_model()
    native = NativeModel(model)
    assert native.identity != model.identity
    assert not any(part.training for part in native.train().modules())


def test_probability_and_radius_of_a_linear_model_are_those_of_the_closed_form() -> None:
    """w.A(x + d): margin and weights at native resolution are those of A^T w; the radius never exceeds the truth."""
    model, sigma = linear_model(), 1.2
    x = torch.rand(1, 17, 11, generator=torch.Generator().manual_seed(2))
    rows, columns = (axis_matrix(axis, "bilinear").toarray() for axis in model.geometry((1, 17, 11)).axes)
    weight = rows.T @ model.network.weight[0].detach().double().numpy() @ columns
    margin = float((weight * x[0].double().numpy()).sum() - 0.1)
    true_radius = abs(margin) / np.linalg.norm(weight)
    found = certified_natively(model, x, sigma, n0=50, n=4000)
    assert (found.space, found.about.shape) == (NATIVE, (1, 17, 11))
    assert found.prediction == int(margin > 0)
    share = 0.5 * math.erfc(-true_radius / sigma / math.sqrt(2))
    assert found.counts[found.prediction] / found.samples.n == pytest.approx(share, abs=0.03)
    assert 0.8 * true_radius < found.radius < true_radius
    assert found.native_radius == found.radius


def test_counts_are_those_of_the_resize_written_by_hand() -> None:
    model = linear_model()
    x = torch.rand(1, 17, 11, generator=torch.Generator().manual_seed(2))

    def composed(batch: Tensor) -> Tensor:
        return model(torch.stack([model.preprocess(one) for one in batch]))

    by_hand = SmoothedClassifier(composed, 2, 0.4).certify(x, n0=20, n=200, seed=5, item_id="a")
    found = certified_natively(model, x, 0.4, n0=20, n=200, item_id="a")
    assert found.counts == by_hand.counts


def test_every_prompt_method_works_at_native_resolution() -> None:
    vlm = TinyVLM()
    names = ("plain", "zero-shot", "per-sample", "split")
    methods = prompt_methods(vlm, CLASS_NAMES, names, sigma=0.3, context="an h&e image patch of", copies=8)
    comparison = PromptComparison(NativeModel(vlm), methods, 0.3)
    x = torch.rand(vlm.input_shape, generator=torch.Generator().manual_seed(3))
    found = comparison.certify(x, n0=10, n=100, item_id="a")
    assert all(certificate.space == NATIVE for certificate in found.values())
    plain = methods[0].classifier  # type: ignore[attr-defined]
    assert isinstance(plain, PromptedClassifier)
    expected = SmoothedClassifier(plain, len(CLASS_NAMES), 0.3).certify(x, n0=10, n=100, item_id="a")
    assert found["plain"].counts == expected.counts  # this model's preparation changes nothing
    assert PromptComparison(vlm, methods, 0.3).certify(x, n0=10, n=100)["plain"].space == MODEL_INPUT


@pytest.mark.parametrize("size", [(6, 5), (24, 30), (12, 10), None])
def test_each_native_pixel_gets_the_class_of_the_networks_nearest(size: tuple[int, int] | None) -> None:
    x = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    small = x.mean(dim=1, keepdim=True)
    if size is not None:
        small = functional.interpolate(small, size, mode="bilinear", antialias=True)
    answer = Bright()(small).argmax(1)
    rows, columns = (np.floor((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip((12, 10), answer.shape[1:]))
    found = NativeSegmenter(Bright(), 1, size)(x)
    assert found.shape == (2, 2, 12, 10)
    assert torch.equal(found.argmax(1), answer[:, rows][:, :, columns])


def picture() -> MedicalImage:
    pixels = np.random.default_rng(0).random((3, 12, 10)).astype(np.float32)
    mask = (pixels.mean(axis=0) > 0.5).astype(np.int64)
    return MedicalImage("a", pixels, label=None, steps=(), source="none", mask=mask)


def mask_record(folder: Path, space: str):
    """One colour image by a network of grey 6x5 images."""
    scans = write_scans(folder, 1)
    spec = mask_spec(scans, size=(6, 5), space=space, sigma=0.3, budget=200, seed=2)
    spec = replace(spec, target=replace(spec.target, taus=(0.6,)), alpha=0.05)
    return load_job(spec, allow_code=True, dataset=open_dataset(scans)).certify(picture())


def test_the_certificate_of_a_mask_is_that_of_the_composed_model(tmp_path: Path) -> None:
    record = mask_record(tmp_path / "scans", NATIVE)
    found = record.certificates["plain"]
    assert (found.space, found.about.shape) == (NATIVE, (3, 12, 10))
    assert found.mask.shape == (12, 10) and found.native_radius == found.radius
    assert record.scores["plain"].to_dict()

    def by_hand(x: Tensor) -> Tensor:
        grey = x.mean(dim=1, keepdim=True)
        small = functional.interpolate(grey, (6, 5), mode="bilinear", antialias=True)
        return functional.interpolate(Bright()(small), (12, 10), mode="nearest-exact")

    expected = SmoothedSegmenter(by_hand, 2, 0.3).certify(
        picture().pixels, n0=5, n=200, tau=0.6, alpha=0.05, seed=2, item_id="a"
    )
    assert np.array_equal(found.mask, expected.mask) and np.array_equal(found.agreement, expected.agreement)


def test_at_the_models_input_the_radius_is_carried_over(tmp_path: Path) -> None:
    found = mask_record(tmp_path / "scans", MODEL_INPUT).certificates["plain"]
    geometry = mask_geometry((3, 12, 10), 1, (6, 5))
    assert found.about.shape == (1, 6, 5) and found.native is not None
    assert found.native.geometry == geometry and found.native.norm == norm_bound(geometry)
    assert found.native_radius > found.radius  # averaging channels and pixels shrinks perturbations


def test_volumes_are_not_resized() -> None:
    assert norm_bound(mask_geometry((1, 4, 5, 6), None, None)) == 1.0
    with pytest.raises(InputError, match="3 spatial axes"):
        mask_geometry((1, 4, 5, 6), None, (3, 3))


@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_runs_of_images_of_two_sizes(tmp_path: Path, kind: str) -> None:
    """Whatever the space, shapes are the images' own or the model's, and ``verify`` redraws both."""
    if kind == "classes":
        for part, size in (("a", 7), ("b", 10)):
            write_images(tmp_path / "data" / part, 2, size=size)
        data = tmp_path / "data"
    else:
        write_scans(tmp_path / "one", 1, size=8)
        data = write_scans(tmp_path / "data", 2, size=11)
        for part in ("images", "masks"):
            (tmp_path / "one" / part / "0.png").rename(data / part / "other.png")
    if kind == "classes":
        flat = tmp_path / "flat"
        for index, file in enumerate(sorted(data.rglob("*.png"))):
            (flat / file.parent.name).mkdir(parents=True, exist_ok=True)
            file.rename(flat / file.parent.name / f"{index}.png")
        data = flat
    for space in (NATIVE, MODEL_INPUT):
        made = class_spec(data, space=space) if kind == "classes" else mask_spec(data, space=space, size=(6, 5))
        full_run(made, tmp_path / space)
        found = [record.certificates["plain"] for record in RunFolder.open(tmp_path / space).records()]
        shapes = {one.about.shape for one in found}
        assert len(shapes) == (2 if space == NATIVE else 1)
        assert all((one.native is None) == (space == NATIVE) for one in found)
        own = ("--model", made.model, "--data", data, "--allow-code")
        assert f"{len(found)} certificates" in call("verify", tmp_path / space, "--resample", 1, *own).text


def test_the_demo_at_native_resolution(tmp_path: Path) -> None:
    """A real vision-language model on slices of two sizes."""
    for index, folder in enumerate(sorted(asset("demo_images").iterdir())[:2]):
        (tmp_path / "data" / folder.name).mkdir(parents=True)
        first = sorted(folder.glob("*.png"))[0]
        with Image.open(first) as image:
            (image if index else image.crop((0, 0, 120, 150))).save(tmp_path / "data" / folder.name / first.name)
    spec = class_spec(tmp_path / "data", model="demo", budget=12, n0=4, space=NATIVE)
    full_run(replace(spec, data=DataSpec(str(tmp_path / "data"))), tmp_path / "run")
    found = [record.certificates["plain"] for record in RunFolder.open(tmp_path / "run").records()]
    assert len({one.about.shape for one in found}) == 2
    assert (
        "2 certificates"
        in call(
            "verify", tmp_path / "run", "--resample", 1, "--salt", "a", "--model", "demo", "--data", tmp_path / "data"
        ).text
    )
