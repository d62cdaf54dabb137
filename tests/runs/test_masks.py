"""Segmentation runs: resumed, sharded, merged, spread over workers and verified like any other."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from certimed.certificates import collect_provenance
from certimed.data import open_dataset
from certimed.executors import LocalExecutor, Lost
from certimed.runs import (
    FAILED,
    MaskCertifier,
    MaskSettings,
    MaskWork,
    RunFolder,
    Shard,
    certify_masks,
    certify_with,
    data_section,
    lost_mask,
    merge,
)
from certimed.verification import verify

SETTINGS = MaskSettings(sigma=0.25, n0=5, n=60)


class Threshold(nn.Module):
    """Two classes: darker and lighter than one half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = x.mean(dim=1) - 0.5
        return torch.stack([-level, level], dim=1)


def make(images):
    model = Threshold().eval()
    certifier = MaskCertifier({"plain": model}, model, 2, SETTINGS, model_ids={"plain": "m"})
    return open_dataset(images), certifier


def manifest(dataset):
    return {
        "task": "segment",
        "settings": {"sigma": 0.25, "n0": 5, "n": 60, "tau": 0.75, "alpha": 0.001, "seed": 0, "correction": "holm"},
        "methods": ["plain"],
        "model": {"identity": "m"},
        "classes": ["dark", "light"],
        "data": data_section(dataset),
        "provenance": collect_provenance("cpu").to_dict(),
    }


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(generator.integers(0, 256, (6, 6), dtype=np.uint8)).save(folder / f"{index}.png")
    (folder / "3.png").write_bytes(b"broken")
    return folder


def lines(path):
    return sorted((path / "certificates.jsonl").read_text().splitlines())


@pytest.fixture
def whole(images, tmp_path):
    dataset, certifier = make(images)
    with RunFolder.create(tmp_path / "whole", manifest(dataset)) as folder:
        assert len(list(certify_masks(dataset, certifier, folder))) == 4
    return folder


def test_a_mask_run_is_true_and_read_back(whole):
    verdict = verify(whole.path)
    assert verdict.ok, verdict.faults
    assert (verdict.images, verdict.failed, verdict.certificates) == (4, 1, 3)
    records = list(whole.mask_records())
    assert [record.status for record in records].count(FAILED) == 1
    assert all(record.seconds > 0 for record in records)


def test_shards_of_masks_merge_to_the_whole_run_arrays_included(images, whole, tmp_path):
    for index in (1, 2):
        dataset, certifier = make(images)
        part = Shard(index, 2)
        folder = RunFolder.create(tmp_path / str(index), manifest(dataset), shard=part.section(dataset.ids))
        with folder:
            list(certify_masks(dataset.subset(part.indices(dataset.ids)), certifier, folder))
        assert verify(folder.path).ok
    with merge([tmp_path / "1", tmp_path / "2"], tmp_path / "merged") as merged:
        assert merged.digest() == whole.digest()
    assert lines(tmp_path / "merged") == lines(whole.path)
    assert verify(tmp_path / "merged").ok
    assert list(merged.mask_records())


def test_workers_give_the_same_masks(images, whole, tmp_path):
    dataset, _ = make(images)
    with RunFolder.create(tmp_path / "run", manifest(dataset)) as folder:
        work = MaskWork(make, images=str(images))
        assert len(list(certify_with(LocalExecutor(1), work, dataset, folder, lost=lost_mask))) == 4
    assert lines(tmp_path / "run") == lines(whole.path)
    assert verify(tmp_path / "run").ok


def test_a_lost_image_is_a_failed_mask(images, tmp_path):
    class Stub:
        def run(self, work, tasks):
            for task in tasks:
                yield task, Lost("its worker ended 3 times (signal 9)")

    dataset, _ = make(images)
    with RunFolder.create(tmp_path / "run", manifest(dataset)) as folder:
        list(certify_with(Stub(), None, dataset, folder, lost=lost_mask))
    assert [record.status for record in folder.mask_records()] == [FAILED] * 4
    assert verify(tmp_path / "run").ok
