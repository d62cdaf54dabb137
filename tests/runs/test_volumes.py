"""Volumes through whole runs: 3-D networks, slices, resampling, what is recorded, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_files import write_series
from scipy import stats
from torch import Tensor, nn

import certimed
from certimed import DataSpec, RunSpec, SmoothedSegmenter
from certimed.budgets import Agreement
from certimed.budgets.pixels import PixelEvidence
from certimed.data import ReadOptions
from certimed.errors import InputError
from certimed.runs import MaskTarget, MeasureTarget
from certimed.segmenters import SegmentationModel
from certimed.statistics import require_samples_for_tau
from certimed.verification import verify

nibabel = pytest.importorskip("nibabel")
WHOLE = ReadOptions(volume=True, percentiles=(0.0, 100.0))
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


class Threshold(nn.Module):
    """Each voxel by itself: class 1 above one half."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.new_full((), 0.5).expand_as(x), x], dim=1)


def network(axes: int) -> SegmentationModel:
    """A small network of planes or volumes, with weights from a seed."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(
            kind(1, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Upsample(scale_factor=2), kind(4, 2, 1)
        )
    return SegmentationModel(layers, num_classes=2, output="logits", multiple_of=2, name=f"net{axes}")


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    """Two balls of different size, with their masks."""
    rng = np.random.default_rng(0)
    place = np.indices((9, 10, 7)) - np.array([4, 5, 3])[:, None, None, None]
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name, size in (("a", 9), ("b", 4)):
        ball = (place**2).sum(0) < size
        image = 600 * ball + rng.normal(size=ball.shape) * 20
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), AFFINE), tmp_path / "images" / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(ball.astype(np.uint8), AFFINE), tmp_path / "masks" / f"{name}.nii.gz")
    return tmp_path


def run(spec: RunSpec, out: Path, model: SegmentationModel) -> certimed.Run:
    from certimed.runs.run import execute

    execute(spec, out, job=spec.load(model=model))
    return certimed.load_run(out)


def spec(data: Path, reading: ReadOptions = WHOLE, **more: object) -> RunSpec:
    parts = {"target": MaskTarget(), "sigma": 0.1, "budget": 60, **more}
    return RunSpec("mine", DataSpec(str(data), reading=reading), **parts)  # type: ignore[arg-type]


def test_a_network_of_volumes_is_certified_and_verified(heads: Path, tmp_path: Path) -> None:
    wanted = spec(heads)
    assert RunSpec.from_dict(json.loads(json.dumps(wanted.to_dict()))) == wanted
    found = run(wanted, tmp_path / "run", network(3))
    assert verify(tmp_path / "run").ok
    for record in found.records():
        certificate = record.certificates["plain"]
        assert certificate.shape == (1, 9, 10, 7)
        assert record.place == {"affine": AFFINE.tolist(), "shape": [9, 10, 7], "source": "nifti"}
        assert record.scores


def test_measurements_are_in_millilitres_after_resampling(heads: Path, tmp_path: Path) -> None:
    target = MeasureTarget(measurements=("volume:class 1",), radii=(0.05,), taus=(0.75,))
    found = run(spec(heads, target=target, resample=(3.0, 3.0, 3.0)), tmp_path / "run", network(3))
    assert verify(tmp_path / "run").ok
    record = next(iter(found.records()))
    mask, measured = record.certificates["plain"], record.certificates["plain, measured"]
    assert mask.shape == (1, 6, 7, 7)
    assert mask.native.geometry.shape == (1, 9, 10, 7)
    interval = measured.claim.intervals[0]
    voxel = 2.0 * 9 / 6 * 2.0 * 10 / 7 * 3.0 / 1000  # ml: sides are whole, so the spacing is nearly the one asked for
    counts = np.array(interval.values) / voxel
    np.testing.assert_allclose(counts, counts.round(), atol=1e-6)
    assert interval.unit == "ml"


def test_slices_of_a_series_by_a_network_of_planes(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    values = (np.indices((8, 6, 4)).sum(0) * 50).astype(np.int16)
    write_series(tmp_path / "ct", values, np.diag([-1.0, -1.0, 2.0, 1.0]))
    data = DataSpec(str(tmp_path / "ct"), slices="every:2", reading=ReadOptions(window=(400.0, 800.0)))
    found = run(RunSpec("mine", data, target=MaskTarget(), sigma=0.1, budget=60), tmp_path / "run", network(2))
    records = list(found.records())
    assert [one.item for one in records] == ["ct#0000", "ct#0002"]
    assert {one.group for one in records} == {"ct"}
    assert verify(tmp_path / "run").ok


def test_run_folders_hold_no_patient_data(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    values = (np.indices((8, 6, 4)).sum(0) * 50).astype(np.int16)
    write_series(tmp_path / "ct", values, np.diag([-1.0, -1.0, 2.0, 1.0]))
    wanted = spec(tmp_path / "ct", ReadOptions(volume=True, window=(400.0, 800.0)))
    run(wanted, tmp_path / "run", network(3))
    held = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    for private in (b"Doe", b"Jane", b"0815", b"1.2.826.0.1.3680043"):
        assert private not in held


def test_planes_and_volumes_are_not_mistaken_for_each_other(heads: Path) -> None:
    with pytest.raises(InputError, match=r"net3 is a network of volumes.*--volume"):
        spec(heads, ReadOptions()).load(model=network(3)).check_settings()
    with pytest.raises(InputError, match=r"net2 is a network of planes.*--slices all"):
        spec(heads).load(model=network(2)).check_settings()
    with pytest.raises(InputError, match=r"resample .* is of 2 axes"):
        spec(heads, resample=(1.0, 1.0)).load(model=network(3)).check_settings()
    with pytest.raises(InputError, match="in place of a size"):
        spec(heads, resample=(1.0, 1.0, 1.0), size=(4, 4, 4))
    with pytest.raises(InputError, match="classifiers take planes"):
        RunSpec("timm:resnet18", DataSpec(str(heads / "images"), reading=WHOLE)).load()


def test_one_slice_as_a_volume_is_the_slice() -> None:
    image = np.random.default_rng(0).random((1, 12, 10), dtype=np.float32)
    smoothed = SmoothedSegmenter(Threshold().eval(), num_classes=2, sigma=0.2)
    plane = smoothed.certify(image, n=100, item_id="same")
    volume = smoothed.certify(image[..., None], n=100, item_id="same")
    np.testing.assert_array_equal(volume.mask[..., 0], plane.mask)
    np.testing.assert_array_equal(volume.claim.agreement[..., 0], plane.claim.agreement)
    assert volume.claim.threshold == plane.claim.threshold
    np.testing.assert_array_equal(volume.radius_map()[..., 0], plane.radius_map())


@pytest.mark.parametrize("space", [(6, 5, 4), (40,), (3, 3, 3)])
def test_the_error_over_independent_voxels_is_exact_whatever_their_axes(space: tuple[int, ...]) -> None:
    """Every voxel agrees with probability tau exactly, the worst case: any certified one is an error.

    Of independent voxels some is certified with probability ``1 - (1 - P(Bin(n, tau) >= t))^V``, t being the smallest
    count that Holm's first step accepts: a sum over binomials, no simulation.
    """
    n, tau, alpha = 100, 0.75, 0.05
    voxels = math.prod(space)
    require_samples_for_tau(n, tau, alpha, voxels)
    evidence = PixelEvidence((n,), space, (tau,), (alpha,), "holm", 0.0)
    least = None
    for count in range(n + 1):  # one voxel with the count, all others without a sample that agrees
        agreement = np.zeros(space, np.int16)
        agreement.flat[0] = count
        bound = evidence.bound(0, Agreement(n, agreement))[0]
        if bound is not None and count >= bound:
            least = count
            break
    assert least is not None
    wrong = -np.expm1(voxels * np.log1p(-stats.binom.sf(least - 1, n, tau)))
    assert wrong <= alpha
    before = -np.expm1(voxels * np.log1p(-stats.binom.sf(least - 2, n, tau)))
    assert before > alpha * (1 - alpha)  # one count less would not do


def test_voxels_by_themselves_against_the_closed_form() -> None:
    """The smoothed answer of a threshold is 1 where the voxel is above one half; its radius is the distance to it."""
    rng = np.random.default_rng(1)
    image = rng.random((1, 8, 7, 6), dtype=np.float32)
    found = SmoothedSegmenter(Threshold().eval(), num_classes=2, sigma=0.25).certify(image, n=400, alpha=1e-3)
    sure, true = found.certified, image[0] > 0.5
    assert sure.any()
    np.testing.assert_array_equal(found.mask[sure], true[sure])
    assert (np.abs(image[0] - 0.5)[sure] >= found.radius).all()
    assert (found.radius_map() <= np.abs(image[0] - 0.5) + 1e-9).all()
