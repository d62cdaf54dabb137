"""The commands as a person uses them, on the demo models: certify with prompts, workers, masks behind a denoiser."""

import pytest
from cli_helper import call
from tiny_runs import lines, manifest

from certimed.assets import asset
from certimed.runs import RunFolder

pytest.importorskip("transformers", reason="transformers is not installed (extra: vlm)")
pytestmark = pytest.mark.slow

WORDS = ("certify", "classes", "--model", "demo", "--data", asset("demo_images"), "--limit", 4, "--n", 50, "--n0", 10,
         "--template", "a {} slice.", "--methods", "plain,zero-shot")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    call(*WORDS, "--out", out)
    return out


def test_methods_of_prompts_are_certified_each_with_its_scope(run):
    records = list(RunFolder.open(run).records())
    assert len(records) == 4
    for record in records:
        scopes = {name: one.scope for name, one in record.certificates.items()}
        assert scopes == {"plain": "end-to-end", "zero-shot": "frozen at x"}
    assert manifest(run)["request"]["templates"] == ["a {} slice."]


def test_workers_give_the_same_counts(run, tmp_path):
    call(*WORDS, "--workers", 2, "--out", tmp_path / "run")
    first, second = (
        {r.item: {name: one.counts for name, one in r.certificates.items()} for r in RunFolder.open(path).records()}
        for path in (run, tmp_path / "run")
    )
    assert first == second


def test_masks_of_the_demo_network(tmp_path):
    words = ("certify", "masks", "--model", "demo", "--data", asset("demo_segmentation_images"), "--limit", 2)
    call(*words, "--sigma", 0.05, "--n0", 3, "--n", 60, "--size", "64x64", "--out", tmp_path / "run")
    records = list(RunFolder.open(tmp_path / "run").records())
    assert [record.certificates["plain"].mask.shape for record in records] == [(64, 64)] * 2
    assert len(lines(tmp_path / "run")) == 2
