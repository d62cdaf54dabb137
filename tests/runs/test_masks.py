"""Segmentation runs: budgets, several taus, arrays in files, workers, scores against the truth."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_runs import full_run, lines, manifest, mask_spec, write_scans

from certimed import InputError, MaskTarget, load_run
from certimed.executors import Lost
from certimed.runs import FAILED

BUDGET = "pixels:60,90,150/0.05"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = write_scans(tmp_path_factory.mktemp("scans") / "all", 4)
    (folder / "images" / "3.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def spec(scans):
    return mask_spec(scans, budget=BUDGET, target=MaskTarget(taus=(0.6, 0.75)), sigma=0.1)


@pytest.fixture(scope="module")
def whole(spec, tmp_path_factory):
    return full_run(spec, tmp_path_factory.mktemp("whole") / "run")


def test_every_tau_has_a_certificate_that_pays_its_part_of_alpha(whole):
    records = {record.item: record for record in whole.records()}
    assert [records[f"{i}.png"].status for i in range(4)] == ["certified"] * 3 + [FAILED]
    for item in ("0.png", "1.png", "2.png"):
        made = records[item].certificates
        assert list(made) == ["plain, tau 0.6", "plain, tau 0.75"]
        assert [one.tau for one in made.values()] == [0.6, 0.75]
        for one in made.values():
            assert one.budget == BUDGET and one.share.level <= 0.0005
            assert one.n in (60, 90, 150)
        # A pixel whose class is shown to exceed .75 exceeds .6 too.
        low, high = made.values()
        assert not (high.certified & ~low.certified).any() or high.n != low.n
        assert set(records[item].scores) == set(made)
        scores = records[item].scores["plain, tau 0.75"].per_class
        assert all(a <= b for a, b in zip(scores["guaranteed Dice"], scores["best-case Dice"]))
        assert all(0 <= value <= 1 for row in scores.values() for value in row)


def test_arrays_lie_in_files_and_lines_stay_short(whole):
    text = (whole.folder.path / "certificates.jsonl").read_text()
    assert max(map(len, text.splitlines())) < 8000
    assert len(list((whole.folder.path / "arrays").iterdir())) == 6
    assert '"mask"' not in json.loads(text.splitlines()[0])["certificates"][0]["claim"]


@pytest.mark.parametrize("how", ["missing", "changed", "swapped"])
def test_arrays_that_do_not_belong_are_refused(spec, tmp_path, how):
    run = full_run(spec, tmp_path / "run")
    first, second = sorted((tmp_path / "run" / "arrays").iterdir())[:2]
    if how == "missing":
        first.unlink()
    elif how == "changed":
        with np.load(first) as stored:
            arrays = {name: stored[name].copy() for name in stored.files}
        arrays["agreement"].flat[0] -= 1
        np.savez_compressed(first, **arrays)
    else:
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
    with pytest.raises(InputError, match=r"certificates\.jsonl line \d: "):
        list(run.records())


def test_workers_and_resume_give_the_same_masks(spec, whole, tmp_path):
    full_run(spec, tmp_path / "run", workers=2)
    assert lines(tmp_path / "run") == lines(whole)
    path = tmp_path / "run" / "certificates.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    full_run(None, tmp_path / "run", resume=True)
    assert lines(tmp_path / "run") == lines(whole)
    assert load_run(tmp_path / "run").folder.digest() == whole.folder.digest()


def test_a_lost_image_is_a_failed_mask(spec, tmp_path):
    class Deadly:
        def run(self, work, tasks):
            for task in tasks:
                yield task, Lost("its worker ended 3 times (signal 9)")

    run = full_run(spec, tmp_path / "run", executor=Deadly())
    assert [(record.status, record.reason) for record in run.records()] == [
        (FAILED, "its worker ended 3 times (signal 9)")
    ] * 4


def test_the_network_is_known_by_its_identity(scans, spec, whole, tmp_path):
    recorded = manifest(whole)
    assert len(recorded["model"]["identity"]) == len(recorded["methods"][0]["identity"]) == 64
    other = mask_spec(scans, budget=BUDGET, target=spec.target, sigma=0.1, model="python:tiny_models:other_segmenter")
    with pytest.raises(InputError, match=r"model\.identity was"):
        full_run(other, whole.folder.path, resume=True)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"budget": "grid"}, "pixels:100,200,400/0.01"),
        ({"budget": "pixels:10,20"}, r"n=20 cannot certify tau=0\.75 over 64 pixels at alpha=\S+; use n >= \d+"),
        ({"target": MaskTarget, "taus": (0.75, 0.75)}, "names one twice"),
        ({"target": MaskTarget, "taus": (0.75, 0.3)}, "tau=0.3"),
        ({"target": MaskTarget, "taus": ()}, "no tau is named"),
        ({"target": MaskTarget, "correction": "hope"}, "correction hope is unknown"),
        ({"target": MaskTarget, "empty": "two"}, "empty two is unknown"),
        ({"budget": 0}, "n=0"),
        ({"templates": ("a {}",)}, "are for prompts"),
        ({"methods": ("zero-shot",)}, "needs a model that reads prompts"),
        ({"methods": ("denoised",)}, "go together"),
    ],
)
def test_impossible_requests_are_one_sentence(scans, tmp_path, fields, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        if "target" in fields:
            fields = {"target": MaskTarget(**{name: value for name, value in fields.items() if name != "target"})}
        full_run(mask_spec(scans, **fields), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_image_with_more_pixels_than_the_samples_serve_fails_alone(tmp_path):
    scans = write_scans(tmp_path / "scans", 2)
    Image.fromarray(np.full((64, 64), 200, np.uint8)).save(scans / "images" / "0.png")
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(scans / "masks" / "0.png")
    for number in range(4):
        (scans / "images" / f"{number + 2}.png").write_bytes((scans / "images" / "1.png").read_bytes())
        (scans / "masks" / f"{number + 2}.png").write_bytes((scans / "masks" / "1.png").read_bytes())
    few = 50  # enough for 64 pixels, too few for 4096
    with pytest.raises(InputError, match="over 4096 pixels"):  # the first image shows it: nothing is begun
        full_run(mask_spec(scans, budget=few, target=MaskTarget(correction="bonferroni")), tmp_path / "first")
    assert not (tmp_path / "first").exists()
    (scans / "images" / "0.png").rename(scans / "images" / "9.png")
    (scans / "masks" / "0.png").rename(scans / "masks" / "9.png")
    run = full_run(mask_spec(scans, budget=few, target=MaskTarget(correction="bonferroni")), tmp_path / "last")
    assert [(r.item, r.status) for r in run.records()][-1] == ("9.png", FAILED)
    assert [r.status for r in run.records()].count(FAILED) == 1
