"""Promptable segmenters: transformers' answers, one embedding per image, certificates on boxes, clicks and pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import full_run, write_scans

from benchmarks.sam_boxes import SIDE, measured, write_sam
from certimed import DataSpec, InputError, MaskTarget, RunSpec
from certimed.errors import ModelError
from certimed.segmenters import PromptedSegmenter, load_segmenter
from certimed.verification import verify

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam")
    write_sam(path)
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("scans") / "scans", 2, size=24)


def spec(folder: Path, scans: Path, **fields: Any) -> RunSpec:
    about = {"n0": 5, "budget": 80, "target": MaskTarget(taus=(0.6,))} | fields
    return RunSpec(f"sam:{folder}", about.pop("data", DataSpec(str(scans))), **about)


@pytest.mark.parametrize("prompt", ["box", "click"])
def test_answers_are_transformers_own(folder: Path, prompt: str) -> None:
    from transformers import SamModel, SamProcessor

    theirs, processor = SamModel.from_pretrained(folder).eval(), SamProcessor.from_pretrained(folder)
    segmenter = load_segmenter(f"sam:{folder}")
    assert isinstance(segmenter, PromptedSegmenter) and segmenter.side == SIDE
    image = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(1))
    boxes = [[5.0, 6.0, 30.0, 35.0], [1.0, 2.0, 20.5, 21.25]]
    clicks = [[5.0, 6.0], [20.5, 21.25]]
    given = {"input_boxes": [boxes]} if prompt == "box" else {"input_points": [[[one] for one in clicks]]}
    ready = processor(images=[image], do_rescale=False, return_tensors="pt", **given)
    with torch.no_grad():
        prompts = {name: ready[name].float() for name in given}
        out = theirs(pixel_values=ready.pixel_values, multimask_output=False, **prompts)
        (wanted,) = processor.post_process_masks(
            out.pred_masks, ready.original_sizes, ready.reshaped_input_sizes, binarize=False
        )
        embedding = segmenter.embed(image[None])
        found = segmenter.answer(embedding, torch.tensor(boxes if prompt == "box" else clicks).double(), (40, 50))
        alone = segmenter.answer(embedding.expand(2, -1, -1, -1), torch.tensor([clicks[0]] * 2), (40, 50))
    assert found.shape == (2, 2, 40, 50) and float(wanted.std()) > 0.1
    assert float((found[:, 1] - wanted[:, 0]).abs().max()) < 1e-5 and not found[:, 0].any()
    assert torch.allclose(alone[0], alone[1], atol=1e-5)


def test_an_image_is_embedded_once_however_many_boxes_are_drawn(folder: Path, scans: Path, tmp_path: Path) -> None:
    request = spec(folder, scans, vary=("box=1px",))
    job = request.load()
    calls: list[int] = []
    job.model.model.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    job.record(0)
    assert len(calls) == 1
    job.record(1)
    assert len(calls) == 2


@pytest.mark.parametrize("vary", [("box=1px",), ("click=1px",), ("box-left=1px", "box-right=2px"), ("gain=0.1",), ()])
def test_runs_on_boxes_clicks_settings_and_pixels(
    folder: Path, scans: Path, tmp_path: Path, vary: tuple[str, ...]
) -> None:
    request = spec(folder, scans, vary=vary) if vary else spec(folder, scans, sigma=0.02)
    run = full_run(request, tmp_path / "run")
    assert verify(run.folder.path).faults == ()
    for record in run.folder.records():
        assert record.status == "certified", record.reason
        (one,) = record.certificates.values()
        assert one.claim.mask.shape == (24, 24) and set(record.scores) == {"plain"}
        settings = one.about.settings
        if vary[:1] == ("box=1px",):
            mask = np.asarray(record.scores["plain"].per_class["guaranteed Dice"])
            assert mask.shape == (2,)
            assert [axis.name for axis in settings.axes] == ["box-left", "box-top", "box-right", "box-bottom"]
            left, top, right, bottom = (axis.at for axis in settings.axes)
            assert (left + right, top + bottom) == (24.0, 24.0) and right > left
            assert "box-left within" in one.statement()


def test_the_benchmark_runs_the_encoder_once(folder: Path) -> None:
    segmenter = load_segmenter(f"sam:{folder}")
    found = measured(segmenter, 100)
    assert found["calls"] == 1 and 0 < found["once"] < found["every"]


def test_boxes_from_a_table(folder: Path, scans: Path, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text("image,left,top,right,bottom\n0.png,2,3,20,21.5\n")
    request = spec(folder, scans, vary=("box-left=1px",), data=DataSpec(str(scans), boxes=str(table)))
    run = full_run(request, tmp_path / "run")
    first, second = run.folder.records()
    (one,) = first.certificates.values()
    assert one.about.settings.axes[0].at == 2.0
    assert second.status == "failed" and "has no box in the table" in str(second.reason)
    for text, said in (
        ("image,left\n0.png,1\n", "line 2 must have"),
        ("image,left,top,right,bottom\na,5,1,2,3\n", "is no box"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=said):
            request.load()


def test_what_does_not_fit_is_refused(folder: Path, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="resizes images itself"):
        spec(folder, scans, size=(32, 32), vary=("box=1px",)).load()
    with pytest.raises(ModelError, match="bind one"):
        load_segmenter(str(folder))(torch.zeros(1, 3, 8, 8))
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(InputError, match="not 'sam'"):
        load_segmenter(f"sam:{tmp_path}")
