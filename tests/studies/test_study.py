"""Several runs as one study, and the demo, which is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import TinyVLM

from certimed.assets import asset
from certimed.errors import InputError
from certimed.runs import DataSpec, MaskTarget, RunFolder, RunSpec
from certimed.studies import demo, run_study
from certimed.verification import verify


def test_a_study_has_runs_of_one_kind() -> None:
    data = DataSpec("nowhere")
    mixed = {"a": RunSpec("demo", data), "b": RunSpec("demo", data, MaskTarget())}
    for specs in ({}, mixed):
        with pytest.raises(InputError, match="one or more runs, all of classes or all of masks"):
            run_study(specs, "nowhere")


def test_items_of_a_request_are_checked() -> None:
    names = DataSpec(str(asset("demo_images"))).open().ids
    chosen = DataSpec(str(asset("demo_images")), items=(names[3], names[1]), groups=("a", "b")).open()
    assert chosen.ids == (names[3], names[1]) and chosen.groups == ("a", "b")
    with pytest.raises(InputError, match=r"has no image 'missing\.png'"):
        DataSpec(str(asset("demo_images")), items=("missing.png",)).open()
    with pytest.raises(InputError, match="2 groups do not fit 1 items"):
        DataSpec(str(asset("demo_images")), items=(names[0],), groups=("a", "b")).open()


@pytest.mark.timeout(900)
def test_the_demo_certifies_tunes_and_draws(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed (extra: vlm)")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: figures)")
    found = demo(tmp_path / "demo", images=2, n=60, masks=1, mask_n=64)
    labels = [f"prompts-sigma-{sigma}" for sigma in ("0.5", "1")]
    assert list(found.prompts.folders) == labels
    assert [entry["name"] for entry in found.prompts.folders[labels[0]].methods] == [
        "plain", "zero-shot", "few-shot", "lora",
    ]  # fmt: skip
    assert found.masks is not None and {one.label for one in found.masks.series if one.masks} == {"plain", "denoised"}
    measured = found.masks.measured()
    assert measured is not None and {row.cells[1] for row in measured.rows} == {"area:grey matter"}
    assert found.largest().scope == "end-to-end"
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found.pictures) and len(found.pictures) == 1
    for study in (found.prompts, found.masks):
        for folder in study.folders.values():
            assert isinstance(folder, RunFolder)
            assert verify(folder.path).ok, verify(folder.path).faults
    with pytest.raises(InputError, match="not empty"):
        demo(tmp_path / "demo")


def test_a_tiny_model_is_shared_by_the_runs(tmp_path: Path) -> None:
    """A model that is loaded already serves every run; its own name stays in the request."""
    vlm, used = TinyVLM(), []
    for name in ("mucus", "adipose tissue"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(np.full((4, 4), 100 + len(name), np.uint8)).save(tmp_path / "images" / name / "a.png")
    data = DataSpec(str(tmp_path / "images"), ("mucus", "adipose tissue"))
    spec = RunSpec("tiny", data, budget=20, n0=10, templates=("an image of {}.",))

    def load(one: RunSpec):
        job = one.load(model=vlm)
        used.append(job.model)
        return job

    specs = {f"sigma-{sigma}": spec.changed(sigma=sigma) for sigma in (0.25, 0.5)}
    study = run_study(specs, tmp_path / "study", load=load)
    assert used == [vlm, vlm] and {one.sigma for one in study.series} == {0.25, 0.5}
