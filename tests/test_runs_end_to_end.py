"""The commands as a person uses them, on the demo model: certify, verify, redraw, and workers."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from certimed.assets import asset
from certimed.cli import classify, inputs
from certimed.cli.app import app
from certimed.cli.prompting import parse_prompts
from certimed.cli.running import Running, make_classification
from certimed.data import DEFAULT_READ
from certimed.runs import ClassificationWork, certify_with
from certimed.verification import verify

pytest.importorskip("transformers", reason="transformers is not installed (extra: vlm)")
pytestmark = pytest.mark.slow

IMAGES, TEMPLATE = 4, "a {} slice."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    call(
        "certify", "--model", "demo", "--data", asset("demo_images"), "--limit", IMAGES, "--n", 50, "--n0", 10,
        "--template", TEMPLATE, "--prompts", "none,zero-shot", "--out", out,
    )  # fmt: skip
    return out


def call(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_a_run_of_the_command_line_is_verified_and_redrawn(run):
    assert f"true: {2 * IMAGES} certificates of {IMAGES} images" in call("verify", run)
    said = call("verify", run, "--resample", 2, "--model", "demo", "--data", asset("demo_images"), "--salt", "s")
    assert "4 of 4 counts are equal" in said


def test_invented_counts_are_shown_by_redrawing(run, tmp_path):
    """Consistent forgery: another image's numbers under this image's name, all digests made right."""
    from certimed.integrity import seal_line

    forged = shutil.copytree(run, tmp_path / "forged")
    path = forged / "certificates.jsonl"
    digest = json.loads((forged / "run.json").read_text())["settings_sha256"]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    certificates = [record["certificates"] for record in records]
    lines = []
    for index, record in enumerate(records):
        record["certificates"] = json.loads(json.dumps(certificates[index - 1]))
        for cert in record["certificates"].values():
            cert["item"] = record["item"]
        del record["sha256"]
        lines.append(seal_line(json.dumps(record), digest) + "\n")
    path.write_text("".join(lines))
    assert verify(forged).ok
    said = call("verify", forged, "--resample", 4, "--model", "demo", "--data", asset("demo_images"), code=1)
    assert "false" in said


def test_workers_give_the_same_lines(run, tmp_path):
    source = inputs.Source(asset("demo_images"), None, None, None, DEFAULT_READ, None)
    prepare = {
        "model": "demo", "source": source, "templates": [TEMPLATE], "prompting": parse_prompts("none,zero-shot"),
        "limit": IMAGES, "seed": 0, "device": "cpu",
    }  # fmt: skip
    settings = classify.Settings(0.25, 10, 50, 1e-3, "one-sided", 0, None)
    job = classify.prepare(**prepare)
    comparison = job.comparison(settings.sigma)
    options = Running(out=tmp_path / "run", workers=2).checked()
    folder, part = options.open(job.dataset, lambda data: classify.manifest(job, comparison, settings, data))
    work = ClassificationWork(make_classification, prepare=prepare, settings=settings)
    with folder:
        assert len(list(certify_with(options.crew(), work, part, folder))) == IMAGES
    first, second = (
        [
            {name: cert["counts"] for name, cert in json.loads(line)["certificates"].items()}
            for line in sorted((path / "certificates.jsonl").read_text().splitlines())
        ]
        for path in (run, tmp_path / "run")
    )
    assert first == second
