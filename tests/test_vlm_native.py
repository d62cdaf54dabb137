"""Certifying at native resolution: the resize is part of the model, the noise is not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from toys import CLASS_NAMES, TinyVLM
from typer.testing import CliRunner

from certimed import ClassificationModel, SmoothedClassifier
from certimed.assets import asset, demo_prompts
from certimed.certificates import MODEL_INPUT, NATIVE
from certimed.classifiers import classifier_methods
from certimed.cli.app import app
from certimed.operators import axis_matrix
from certimed.prompts import PromptComparison, prompt_methods
from certimed.runs import RunFolder
from certimed.statistics import class_bound
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


def linear_model(size: tuple[int, int] = (6, 5)) -> ClassificationModel:
    weight = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    return ClassificationModel(Linear(weight, -0.1), input_shape=(1, *size))


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
    found = PromptComparison(NativeModel(model), classifier_methods(2, ["model"]), sigma).certify(
        x, n0=50, n=4000, seed=5
    )["model"]
    assert (found.space, found.shape, found.native) == (NATIVE, (1, 17, 11), None)
    assert found.prediction == int(margin > 0)
    share = 0.5 * math.erfc(-true_radius / sigma / math.sqrt(2))
    assert found.counts[found.prediction] / found.n == pytest.approx(share, abs=0.03)
    assert 0.8 * true_radius < found.radius < true_radius
    assert found.native_radius == found.radius


def test_counts_are_those_of_the_engine_with_the_resize_written_by_hand() -> None:
    model = linear_model()
    x = torch.rand(1, 17, 11, generator=torch.Generator().manual_seed(2))

    def composed(batch: Tensor) -> Tensor:
        return model(torch.stack([model.preprocess(one) for one in batch]))

    by_hand = SmoothedClassifier(composed, 2, 0.4).certify(x, n0=20, n=200, seed=5, item_id="a")
    found = PromptComparison(NativeModel(model), classifier_methods(2, ["model"]), 0.4).certify(
        x, n0=20, n=200, seed=5, item_id="a"
    )["model"]
    assert found.counts == by_hand.counts
    assert found.radius == float(class_bound(np.array(by_hand.counts), found.prediction, 1e-3, 0.4).radius)


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


def _run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demo slices and a crop of one, so that sizes differ."""
    root = tmp_path_factory.mktemp("slices")
    for index, folder in enumerate(sorted(asset("demo_images").iterdir())[:2]):
        (root / folder.name).mkdir()
        first = sorted(folder.glob("*.png"))[0]
        with Image.open(first) as image:
            (image if index else image.crop((0, 0, 120, 150))).save(root / folder.name / first.name)
    return root


CLASSES = ",".join(f"{slug}={words}" for slug, words in demo_prompts()["classes"].items())


def test_the_command_at_native_resolution(slices: Path, tmp_path: Path) -> None:
    options = ("--model", "demo", "--data", slices, "--classes", CLASSES)
    certify = ("certify", *options, "--n0", 4, "--n", 12, "--space", "native", "--out", tmp_path / "run")
    _run(*certify, "--prompts", "none,zero-shot", "--copies", 4)
    found = [record.certificates for record in RunFolder.open(tmp_path / "run").records()]
    assert {certificates["none"].space for certificates in found} == {NATIVE}
    assert len({certificates["none"].shape for certificates in found}) == 2
    assert "true: 4 certificates" in _run("verify", tmp_path / "run")
    redrawn = _run("verify", tmp_path / "run", "--resample", 1, "--salt", "a", *options)
    assert "2 of 2 counts are equal" in redrawn


def test_the_command_carries_radii_over(slices: Path, tmp_path: Path) -> None:
    text = _run(
        "certify", "--model", "demo", "--data", slices, "--classes", CLASSES, "--n0", 4, "--n", 40, "--out",
        tmp_path / "run",
    )  # fmt: skip
    assert "native resolution" in text
    for record in RunFolder.open(tmp_path / "run").records():
        certificate = record.certificates["none"]
        assert certificate.native is not None and certificate.native.geometry.input_shape == certificate.shape
    assert "true: 2 certificates" in _run("verify", tmp_path / "run")


def test_an_unknown_space_is_one_sentence(slices: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["certify", "--model", "demo", "--data", str(slices), "--space", "pixel", "--out", str(tmp_path / "run")]
    )
    assert result.exit_code == 2 and "--space pixel is unknown" in result.output
    assert not (tmp_path / "run").exists()
