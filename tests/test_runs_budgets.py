"""Runs under a budget are equal line for line, whole, resumed or sharded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import Certify, lines, manifest, open_images, write_images

from certimed.certificates import ClassCertificate
from certimed.data import MedicalImage
from certimed.errors import InputError
from certimed.runs import RunFolder, Shard, certify_dataset
from certimed.verification import verify


class Adaptive(Certify):
    """The brightness model under a budget."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = {**{k: v for k, v in self.settings.items() if k != "n"}, "budget": "grid@2000"}

    def __call__(self, picture: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
        certificate = self.smoothed.certify(
            torch.from_numpy(picture.pixels), item_id=picture.id, intensity=picture.intensity, n0=10, seed=3,
            budget="grid@2000",
        )  # fmt: skip
        return {"none": 0}, {"none": certificate}


def test_runs_are_equal_line_for_line_resumed_or_sharded_and_a_changed_budget_is_refused(tmp_path: Path) -> None:
    data, certify = open_images(write_images(tmp_path / "images", 12)), Adaptive()
    with RunFolder.create(tmp_path / "whole", manifest(data, certify)) as folder:
        assert len(list(certify_dataset(data, certify, folder))) == 12
    with RunFolder.create(tmp_path / "resumed", manifest(data, certify)) as folder:
        for record, _ in zip(certify_dataset(data, certify, folder), range(5)):
            assert record.status == "certified"
    with RunFolder.resume(tmp_path / "resumed", manifest(data, certify)) as folder:
        list(certify_dataset(data, certify, folder))
    parts = []
    for part in (Shard(1, 2), Shard(2, 2)):
        where = tmp_path / f"part-{part.index}"
        with RunFolder.create(where, manifest(data, certify), shard=part.section(data.ids)) as folder:
            list(certify_dataset(data.subset(part.indices(data.ids)), certify, folder))
        parts += lines(where)
    assert lines(tmp_path / "whole") == lines(tmp_path / "resumed") == sorted(parts)
    assert verify(tmp_path / "whole").ok, verify(tmp_path / "whole").faults
    assert len({json.loads(line)["certificates"]["none"]["n"] for line in parts}) > 3
    other = Adaptive()
    other.settings["budget"] = "grid@10000"
    with pytest.raises(InputError, match=r'settings.budget was "grid@2000" and is now "grid@10000"'):
        RunFolder.resume(tmp_path / "whole", manifest(data, other))
