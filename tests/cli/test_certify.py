"""The certify, tune and plan commands as a person uses them, on the embedded demo model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import make_hostile_folder
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from typer.testing import CliRunner

from certimed.assets import asset, demo_prompts
from certimed.cli.app import app
from certimed.runs import RunFolder

SCHEMAS = Path(__file__).parents[1] / "docs" / "schema"
CLASSES = ",".join(f"{slug}={words}" for slug, words in demo_prompts()["classes"].items())


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """A folder with one test slice of each of three classes."""
    root = tmp_path_factory.mktemp("slices")
    for folder in sorted(asset("demo_images").iterdir())[:3]:
        (root / folder.name).mkdir()
        first = sorted(folder.glob("*.png"))[0]
        shutil.copy(first, root / folder.name / first.name)
    return root


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def certify(data, out, *more):
    return run(
        "certify", "--model", "demo", "--data", data, "--classes", CLASSES, "--n0", 10, "--n", 60, "--sigma", 0.25,
        "--out", out, *more,
    )  # fmt: skip


def certificates(folder):
    return {record.item: record.certificates for record in RunFolder.open(folder).records()}


@pytest.fixture(scope="module")
def whole(slices, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    result = certify(slices, out)
    assert result.exit_code == 0, result.output
    return out, result.output


def test_run_prints_the_table_and_where_the_files_are(whole):
    folder, text = whole
    assert "certified accuracy (%) at radius r" in text
    assert "3 certified, 0 failed" in text
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".json") == ["run.json"]


def test_lines_match_the_published_schema(whole):
    folder, _ = whole
    schemas = [json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")]
    registry = Registry().with_resources([(s["$id"], Resource.from_contents(s)) for s in schemas])
    record = next(s for s in schemas if s["$id"] == "urn:certimed:record:1")
    lines = (folder / "certificates.jsonl").read_text().splitlines()
    assert len(lines) == 3
    for line in lines:
        Draft202012Validator(record, registry=registry).validate(json.loads(line))


def test_manifest_holds_what_is_needed_to_redo_the_run(whole):
    folder, _ = whole
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["settings"]["budget"] == "fixed:60"
    assert len(manifest["model"]["identity"]) == 64
    assert len(manifest["classes"]) == len(demo_prompts()["classes"])
    assert manifest["provenance"]["versions"]["certimed"]


def test_certificates_do_not_depend_on_company_or_order(whole, slices, tmp_path):
    folder, _ = whole
    expected = certificates(folder)
    for name in expected:
        alone = tmp_path / "alone" / name
        alone.parent.mkdir(parents=True)
        shutil.copy(slices / name, alone)
    names = list(expected)
    for index, part in enumerate((names[:1], names[1:])):
        data = tmp_path / f"part-{index}"
        for name in part:
            (data / name).parent.mkdir(parents=True)
            shutil.copy(slices / name, data / name)
        assert certify(data, tmp_path / f"out-{index}").exit_code == 0
        assert certificates(tmp_path / f"out-{index}") == {name: expected[name] for name in part}


def test_existing_run_is_never_overwritten(whole, slices):
    folder, _ = whole
    before = (folder / "certificates.jsonl").read_bytes()
    result = certify(slices, folder)
    assert result.exit_code == 2
    assert "not empty" in result.output
    assert (folder / "certificates.jsonl").read_bytes() == before


def test_hostile_folder_gives_one_line_an_image_and_exit_code_3(tmp_path):
    expected = make_hostile_folder(tmp_path / "images")
    result = certify(tmp_path / "images", tmp_path / "run", "--n0", 1, "--n", 8)
    assert result.exit_code == 3, result.output
    assert "Traceback" not in result.output
    records = {record.item: record for record in RunFolder.open(tmp_path / "run").records()}
    assert set(records) == set(expected)
    assert len(records) >= 30
    for name, wanted in expected.items():
        failed = isinstance(wanted, str)
        assert (records[name].status == "failed") == failed, (name, records[name].reason)
        if failed:
            assert records[name].reason
            assert "\n" not in records[name].reason
    count = sum(isinstance(wanted, str) for wanted in expected.values())
    assert f"{len(expected) - count} certified, {count} failed" in result.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sigma", "-1"], "sigma"),
        (["--sigma", "nan"], "sigma"),
        (["--alpha", "2"], "alpha"),
        (["--n", "-5"], "n=-5"),
        (["--n", "0"], "n=0"),
        (["--n0", "0"], "n0=0"),
        (["--bound", "three-sided"], "--bound"),
        (["--model", "nonsense"], "known form"),
        (["--template", "no placeholder"], "{}"),
        (["--classes", "one"], "--classes"),
        (["--window", "wide"], "--window"),
        (["--prompts", "clever"], "--prompts clever"),
        (["--prompts", "few-shot"], "certimed tune"),
        (["--data", "nowhere"], "nowhere"),
        (["--device", "abacus"], "abacus"),
        (["--task", "cure"], "--task"),
    ],
)
def test_bad_options_get_one_sentence_and_exit_code_2(slices, tmp_path, words, sentence):
    result = certify(slices, tmp_path / "run", *words)
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert sentence in text
    assert "Traceback" not in text
    assert not (tmp_path / "run").exists()


def test_tune_then_certify_with_the_prompt_file(slices, tmp_path):
    tuning = tmp_path / "tuning"
    for folder in sorted(asset("demo_tuning_images").iterdir())[:3]:
        shutil.copytree(folder, tuning / folder.name)
    three = ",".join(CLASSES.split(",")[:0] or [e for e in CLASSES.split(",") if (tuning / e.split("=")[0]).is_dir()])
    prompt = tmp_path / "prompt.safetensors"
    tuned = run(
        "tune", "--model", "demo", "--data", tuning, "--classes", three, "--shots", 4, "--epochs", 3, "--sigmas",
        "0,0.25", "--test", slices, "--out", prompt,
    )  # fmt: skip
    assert tuned.exit_code == 0, tuned.output
    result = run(
        "certify", "--model", "demo", "--data", slices, "--classes", three, "--prompts",
        f"none,{prompt},zero-shot,both,per-sample", "--copies", 8, "--n0", 10, "--n", 40, "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = next(iter(certificates(tmp_path / "run").values()))
    assert list(found) == ["none", "few-shot", "zero-shot", "both", "per-sample"]
    assert found["few-shot"].scope == found["per-sample"].scope == "end-to-end"
    assert found["zero-shot"].scope == found["both"].scope == "prompt frozen at x"
    again = run(
        "certify", "--model", "demo", "--data", tuning, "--classes", three, "--prompts", prompt, "--n0", 2, "--n", 4,
        "--out", tmp_path / "leak",
    )  # fmt: skip
    assert again.exit_code == 3
    assert "used to tune the prompt" in " ".join(again.output.split())


def test_tune_refuses_test_images(slices, tmp_path):
    result = run(
        "tune", "--model", "demo", "--data", slices, "--classes", CLASSES, "--shots", 1, "--test", slices, "--out",
        tmp_path / "prompt.safetensors",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "also in the test images" in " ".join(result.output.split())


def test_unlabelled_images_and_a_single_file(slices, tmp_path):
    single = next(slices.rglob("*.png"))
    result = run("certify", "--model", "demo", "--data", single, "--n", 20, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "no labels" in result.output


def test_plan_answers_the_oracles():
    text = " ".join(run("plan", "--sigma", 1, "--tau", 0.9, "--pixels", 262144, "--radius", 1).output.split())
    assert "n >= 184" in text
    assert "3.199" in text
    assert "2.463" in text


def test_hostile_names_stay_harmless_in_the_terminal(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "\x1b[31mred[bold].png").write_bytes(b"no image")
    result = certify(folder, tmp_path / "run")
    assert result.exit_code == 3
    assert "\x1b[31m" not in result.output


def test_resume_needs_no_options_and_does_only_what_is_missing(slices, tmp_path):
    words = ["certify", "--model", "demo", "--data", slices, "--classes", CLASSES, "--n0", 10, "--n", 60]
    words += ["--sigma", 0.25, "--out", tmp_path / "run"]
    done = subprocess.run([sys.executable, "-m", "certimed", *map(str, words)], capture_output=True, check=True)
    assert b"3 certified" in done.stdout
    path = tmp_path / "run" / "certificates.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:100])
    result = run("certify", "--resume", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "3 certified, 0 failed" in result.output
    assert path.read_bytes() == whole


def test_resume_with_another_setting_names_the_difference(whole, slices):
    folder, _ = whole
    result = run(
        "certify", "--model", "demo", "--data", slices, "--classes", CLASSES, "--n0", 10, "--n", 61, "--sigma", 0.25,
        "--resume", folder,
    )  # fmt: skip
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert "settings.budget" in text
    assert "fixed:61" in text


def test_workers_give_the_same_certificates(whole, slices, tmp_path):
    folder, _ = whole
    result = certify(slices, tmp_path / "run", "--workers", 2)
    assert result.exit_code == 0, result.output
    assert certificates(tmp_path / "run") == certificates(folder)


def test_masks_from_the_command_line(tmp_path):
    result = run(
        "certify", "--task", "segment", "--model", "demo", "--data", asset("demo_segmentation_images"), "--sigma",
        0.05, "--n0", 3, "--n", 60, "--limit", 2, "--size", "64x64", "--pictures", 1, "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "guaranteed" in result.output
    records = list(RunFolder.open(tmp_path / "run").mask_records())
    assert [record.certificates["plain"].mask.shape for record in records] == [(64, 64)] * 2
    scores = records[0].scores["plain"].per_class
    assert all(low <= high for low, high in zip(scores["guaranteed Dice"], scores["best-case Dice"]))
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == 1
    schemas = [json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")]
    registry = Registry().with_resources([(s["$id"], Resource.from_contents(s)) for s in schemas])
    record = next(s for s in schemas if s["$id"] == "urn:certimed:mask-record:1")
    for line in (tmp_path / "run" / "certificates.jsonl").read_text().splitlines():
        Draft202012Validator(record, registry=registry).validate(json.loads(line))


def test_masks_with_too_few_samples_are_refused_with_the_n_that_would_do(tmp_path):
    result = run(
        "certify", "--task", "segment", "--model", "demo", "--data", asset("demo_segmentation_images"), "--tau", 0.9,
        "--n", 50, "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "use n >=" in " ".join(result.output.split())
