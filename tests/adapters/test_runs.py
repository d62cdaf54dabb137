"""Adapters in runs: on the same noise as the model, with an identity and a scope of their own, and checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters.tiny_networks import NAMES, SIZE, class_examples, mask_examples
from PIL import Image
from torch import nn
from typer.testing import CliRunner
from vlm_families import write_transformers_clip

from certimed import DataSpec, MaskTarget, RunSpec, run
from certimed.adapters import Adaptation, AdapterPlan, AdapterRecipe, Draw, Parts, tune_adapter
from certimed.attacks import AttackSpec, attack
from certimed.certificates import END_TO_END, FROZEN_AT_X, NATIVE
from certimed.cli.app import app
from certimed.data import open_dataset
from certimed.engine import Acceleration
from certimed.errors import InputError
from certimed.runs import Prompting, Tuning, load_tuned
from certimed.verification import verify

VIT, CNN = "python:adapters.tiny_networks:classifier", "python:adapters.tiny_networks:segmenter"
FAST = AdapterRecipe(steps=30, batch=12, lr=1e-2)
PLAN = AdapterPlan(Parts(("lora",), rank=2), FAST, (0.0, 0.5))


def write_classes(folder: Path, count: int, seed: int) -> Path:
    """Grey images in one folder a class."""
    images, labels = class_examples(count, seed)
    for index, (image, label) in enumerate(zip(images, labels)):
        place = folder / NAMES[int(label)]
        place.mkdir(parents=True, exist_ok=True)
        pixels = (image[0] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(place / f"{seed}-{index}.png")
    return folder


def write_masks(folder: Path, count: int, seed: int) -> Path:
    """Grey images and their masks."""
    for name, values in zip(("images", "masks"), mask_examples(count, seed)):
        (folder / name).mkdir(parents=True)
        for index, one in enumerate(values.reshape(count, SIZE, SIZE)):
            pixels = (one * 255).round().byte() if name == "images" else one.byte()
            Image.fromarray(pixels.numpy()).save(folder / name / f"{seed}-{index}.png")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images to tune on and to certify, and an adapter."""
    root = tmp_path_factory.mktemp("world")
    tuning, test = (open_dataset(write_classes(root / name, 3, seed)) for name, seed in (("tuning", 1), ("test", 2)))
    model, names, _ = load_tuned(VIT, tuning, None, allow_code=True)
    learnt = tune_adapter(model, tuning, names, PLAN, Draw(shots=3), test=test)
    learnt.save(root / "lora.safetensors")
    return root


def spec(world: Path, *methods: str, data: str = "test", **fields: object) -> RunSpec:
    return RunSpec(VIT, DataSpec(str(world / data)), methods=methods, budget=60, n0=10, sigma=0.5, **fields)


def test_an_adapter_is_certified_beside_the_model_and_the_run_holds(world: Path, tmp_path: Path) -> None:
    file = str(world / "lora.safetensors")
    found = run(spec(world, "plain", file), tmp_path / "run", allow_code=True)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    plain, adapted = manifest["methods"]
    learnt = Adaptation.load(file)
    assert (adapted["name"], adapted["kind"], adapted["scope"]) == ("lora", "adapted", END_TO_END)
    assert adapted["adapter"] == learnt.identity and plain["adapter"] is None
    assert adapted["identity"] not in (plain["identity"], learnt.identity)
    lines = [json.loads(line) for line in (tmp_path / "run" / "certificates.jsonl").read_text().splitlines()]
    for line in lines:
        first, second = line["certificates"]
        assert second["provenance"]["model"] == adapted["identity"] and first["seed"] == second["seed"]
        assert "peft" in second["provenance"]["versions"] or first["provenance"]["versions"].keys()
    assert verify(tmp_path / "run").ok
    # The adapted model alone, as any model, gets the very counts.
    from certimed import SmoothedClassifier

    model = learnt.apply(load_tuned(VIT, open_dataset(world / "test"), None, allow_code=True)[0])
    data = open_dataset(world / "test")
    for index, line in enumerate(sorted(lines, key=lambda one: data.ids.index(one["item"]))[:2]):
        x = model.preprocess(torch.from_numpy(data.load(index).pixels))
        alone = SmoothedClassifier(model, 3, 0.5).certify(x, n0=10, n=60, item_id=data.ids[index], batch_size=None)
        assert list(alone.counts) == line["certificates"][1]["claim"]["counts"]
    assert found.folder.methods[1]["name"] == "lora"


def test_attacks_go_through_an_adapter_and_break_no_certificate_inside_its_radius(world: Path, tmp_path: Path) -> None:
    run(spec(world, "plain", str(world / "lora.safetensors")), tmp_path / "run", allow_code=True)
    how = AttackSpec(steps=5, copies=8, bisections=2, n=200)
    rows = attack(tmp_path / "run", how, images=4, allow_code=True).rows()
    assert "lora" in {row["method"] for row in rows}  # those that answer are attacked
    assert not any(row["inside"] for row in rows)
    assert any(row["broken"] is not None for row in rows)


def test_an_image_that_was_tuned_on_fails_and_a_data_set_of_them_is_refused(world: Path, tmp_path: Path) -> None:
    file = str(world / "lora.safetensors")
    job = spec(world, file, data="tuning").load(allow_code=True)
    record = job.record(0)
    assert record.status == "failed" and "was used to tune the prompt or adapter" in str(record.reason)
    tuning = open_dataset(world / "tuning")
    model, names, _ = load_tuned(VIT, tuning, None, allow_code=True)
    with pytest.raises(InputError, match="both tuned on and certified"):
        tune_adapter(model, tuning, names, PLAN, Draw(shots=3), test=tuning)


class Front(nn.Module):
    """A denoiser that halves contrast, at every noise level."""

    identity = "d" * 64

    def at(self, sigma: float) -> nn.Module:
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 + (x - 0.5) / 2


def front() -> Front:
    """For ``python:``."""
    return Front().eval()


def test_adapters_stand_behind_a_denoiser_where_asked_or_where_they_were_learnt(world: Path, tmp_path: Path) -> None:
    tuning = open_dataset(world / "tuning")
    model, names, _ = load_tuned(VIT, tuning, None, allow_code=True)
    behind = tune_adapter(model, tuning, names, replace(PLAN, recipe=replace(FAST, steps=2)), Draw(2), denoiser=front())
    behind.save(tmp_path / "behind.safetensors")
    entries = ["plain", f"denoised+{world / 'lora.safetensors'}", f"x={tmp_path / 'behind.safetensors'}"]
    prompting = Prompting.read(entries, Tuning())
    assert prompting.denoised and [one.behind for one in prompting.entries] == [False, True, True]
    assert [one.name for one in prompting.entries] == ["plain", "denoised+lora", "x"]
    with pytest.raises(InputError, match="go together"):
        spec(world, *entries).load(allow_code=True)
    with pytest.raises(InputError, match="behind a denoiser"):
        prompting.adapted(model, names, "classes", "e" * 64)
    assert set(prompting.adapted(model, names, "classes", Front.identity)) == {"denoised+lora", "x"}


def test_a_native_run_and_a_wrong_task_or_class_list(world: Path) -> None:
    file = str(world / "lora.safetensors")
    job = spec(world, "plain", file, space=NATIVE).load(allow_code=True)
    assert job.certify(job.dataset.load(0)).certificates["lora"].space == NATIVE
    prompting = Prompting.read([file], Tuning())
    model, names, _ = load_tuned(VIT, open_dataset(world / "test"), None, allow_code=True)
    with pytest.raises(InputError, match="tuned for classes, this run has masks"):
        prompting.adapted(model, names, "masks", None)
    with pytest.raises(InputError, match="another order"):
        prompting.adapted(model, names[::-1], "classes", None)
    with pytest.raises(InputError, match="neither a method"):
        Prompting.read(["denoised+nowhere"], Tuning())


def test_masks_are_certified_with_an_adapter_that_costs_no_pass_more(tmp_path: Path) -> None:
    tuning, test = (open_dataset(write_masks(tmp_path / name, 6, seed)) for name, seed in (("tuning", 1), ("test", 2)))
    model, names, _ = load_tuned(CNN, tuning, ["ground", "square"], task="masks", output="logits", allow_code=True)
    learnt = tune_adapter(model, tuning, names, PLAN, Draw(shots=6), test=test)
    assert learnt.task == "masks" and learnt.shots == 6
    file = learnt.save(tmp_path / "lora.safetensors")
    request = RunSpec(
        CNN,
        DataSpec(str(tmp_path / "test"), names),
        MaskTarget(),
        ("plain", str(file)),
        0.25,
        budget=40,
        output="logits",
    )
    found = run(request, tmp_path / "run", allow_code=True)
    assert verify(tmp_path / "run").ok and len(found.folder.methods) == 2
    tuned = request.changed(data=DataSpec(str(tmp_path / "tuning"), names)).load(allow_code=True).record(0)
    assert tuned.status == "failed" and "tune the prompt or adapter" in str(tuned.reason)


def test_test_time_lora_tunes_at_the_image_and_is_frozen_at_x(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    write_transformers_clip(tmp_path / "clip")
    for index in range(3):
        place = tmp_path / "images" / NAMES[index]
        place.mkdir(parents=True)
        pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index}.png")
    request = RunSpec(
        f"hf:{tmp_path / 'clip'}", DataSpec(str(tmp_path / "images")), budget=20, n0=8, sigma=0.25,
        methods=("plain", "test-time-lora", "again=test-time-lora:steps=3"), tuning=Tuning(copies=6, lr=0.05),
    )  # fmt: skip
    job = request.load()
    image = job.dataset.load(0)
    found = job.certify(image).certificates
    assert {name: one.scope for name, one in found.items()} == {
        "plain": END_TO_END, "test-time-lora": FROZEN_AT_X, "again": FROZEN_AT_X
    }  # fmt: skip
    assert len({one.provenance.model for one in found.values()}) == 3
    method, target = job.engine.methods[1], job.targets(image, job.prepare(image))[0]
    subject = job.engine.subject(job.prepare(image).pixels, image.id, 0, 16, target)
    x = next(method.views(subject, "estimation", 4))
    tuned, again, plain = method.head(subject)(x), method.head(subject)(x), job.engine.methods[0].head(subject)(
        job.engine.methods[0].view(subject, x)
    )  # fmt: skip
    for refused in (request.changed(space=NATIVE), request.changed(speed=Acceleration("bfloat16"))):
        with pytest.raises(InputError, match="in float32 at the model's input"):
            refused.load()
    assert torch.equal(tuned, again) and not torch.allclose(tuned, plain, atol=1e-4)


def test_the_command_line_tunes_plans_and_certifies(world: Path, tmp_path: Path) -> None:
    call = lambda *words: CliRunner().invoke(app, [str(word) for word in words])  # noqa: E731
    common = ("--model", VIT, "--allow-code")
    out = tmp_path / "scales.safetensors"
    made = call(
        "tune", *common, "--data", world / "tuning", "--test", world / "test", "--method", "lora+layernorm",
        "--shots", 2, "--held-out", 1, "--steps", 4, "--batch", 4, "--sigmas", "0,0.5", "--rank", 2, "--out", out,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "lora+layernorm adapter of" in made.output and "accuracy on held out images" in made.output
    assert Adaptation.load(out).parts.kinds == ("lora", "layernorm") and not list(tmp_path.glob("*.checkpoint"))
    certify = ("classes", *common, "--data", world / "test", "--adapt", f"none,{out}", "--sigma", 0.5, "--n", 30)
    planned = call("plan", *certify)
    assert planned.exit_code == 0, planned.output
    assert "2 encoders, each with passes of its own" in " ".join(planned.output.split())
    done = call("certify", *certify, "--n0", 5, "--out", tmp_path / "run", "--quiet")
    assert done.exit_code == 0, done.output
    for words, sentence in (
        (("--method", "odd"), "--method odd is unknown"),
        (("--method", "prompt", "--task", "masks"), "a segmentation network does not read"),
        (("--method", "lora", "--recipe", "best"), "--recipe best is unknown"),
    ):
        refused = call("tune", *common, "--data", world / "tuning", *words, "--out", tmp_path / "no.safetensors")
        assert refused.exit_code != 0 and sentence in " ".join(refused.output.split()), refused.output
