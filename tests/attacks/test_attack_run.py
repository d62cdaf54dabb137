"""Attacks on runs: into the folder, sealed, resumable, verifiable, from Python and from the command line."""

import json
import shutil

import numpy as np
import pytest
from cli_helper import call, measurements, refused
from tiny_runs import class_spec, full_run, lines, mask_spec, write_images, write_scans

from certimed import InputError, attack
from certimed.attacks import Attack, AttackFile, AttackSpec, Sandwich, judge_again
from certimed.integrity import SETTINGS_DIGEST, seal_line
from certimed.runs import RunFolder, RunSpec, merge
from certimed.runs.folder import ATTACKS
from certimed.verification import verify

SPEC = AttackSpec(steps=3, copies=8, bisections=5, n=400)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 6)


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    return full_run(class_spec(images, budget=200), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def attacked(run, tmp_path_factory):
    """A copy of the run, attacked."""
    path = shutil.copytree(run.folder.path, tmp_path_factory.mktemp("attacked") / "run")
    return path, attack(path, SPEC, allow_code=True)


def changed(path, out, change):
    """A copy of an attacked run in which one line was changed by somebody who can seal."""
    copy = shutil.copytree(path, out)
    settings = RunFolder.open(copy).manifest[SETTINGS_DIGEST]
    first, *others = (copy / ATTACKS).read_text().splitlines()
    data = json.loads(first)
    del data["sha256"]
    change(data)
    (copy / ATTACKS).write_text("\n".join([seal_line(json.dumps(data), settings), *others]) + "\n")
    return copy


def test_the_sandwich_holds_what_is_known_of_the_brightness_model(run, attacked):
    """Truth in closed form: |mean - 1/2| over the norm of the mean's gradient, which is 1/4 for 16 pixels."""
    _, found = attacked
    rows = {row["item"]: row for row in found.rows()}
    certified = {one.item: one.certificates["plain"] for one in run.records()}
    assert set(rows) == {item for item, one in certified.items() if not one.abstained}
    assert len(rows) >= 4
    job = run.spec.load(allow_code=True)
    for item, row in rows.items():
        image = job.dataset.load(job.dataset.ids.index(item))
        truth = abs(float(np.mean(image.pixels, dtype=np.float64)) - 0.5) * 4
        assert row["radius"] == certified[item].radius and not row["inside"]
        assert row["radius"] <= truth <= row["broken"] * (1 + 1e-6)
        assert truth * (1 - 1e-3) <= row["base"] <= truth * 1.05
        assert row["unanswered"] <= row["broken"]
        assert row["at_radius"] in ("kept", "abstained")
    (summary,) = found.summary()
    assert (summary["attacked"], summary["inside"], summary["contradicted"]) == (len(rows), 0, False)
    assert 1 < summary["ratio_low"] <= summary["ratio_median"] <= summary["ratio_high"]
    assert list(found.findings()) == []


def test_the_sandwich_is_drawn(attacked):
    """Marks are where the rows are; an image that nothing broke has no upper mark."""
    pytest.importorskip("matplotlib")
    _, found = attacked
    rows = sorted(found.rows(), key=lambda row: row["radius"])
    (axis,) = found.plot(width="single").axes
    marks = {line.get_label(): line.get_ydata().tolist() for line in axis.get_lines()}
    assert marks["certified"] == [row["radius"] for row in rows]
    assert marks["broken by an attack"] == [row["broken"] for row in rows]
    assert marks["base model broken"] == [row["base"] for row in rows]
    from certimed.report.sandwich import sandwich_figure

    (axis,) = sandwich_figure([{**rows[0], "broken": None}]).axes
    assert [len(line.get_ydata()) for line in axis.get_lines()] == [1, 0, 1]
    with pytest.raises(InputError, match="nothing to draw"):
        sandwich_figure([])


def test_the_run_is_verified_with_its_attacks_and_keeps_its_digest(run, attacked):
    path, _ = attacked
    verdict = verify(path)
    assert verdict.ok and verdict.digest == verify(run.folder.path).digest
    assert lines(path) == lines(run)


def test_an_attack_can_be_judged_again_from_its_stored_perturbation(run, attacked):
    path, found = attacked
    job, file = run.spec.load(allow_code=True), AttackFile(RunFolder.open(path))
    for one in found.attacks:
        assert Attack.from_json(one.to_json()) == one
        counts = judge_again(job, one, file.perturbations(one)["broken"])
        assert counts == one.trials[one.broken].judged.counts
    with pytest.raises(InputError, match="restore the file"):
        file.array_path(found.attacks[0]).write_bytes(file.array_path(found.attacks[1]).read_bytes())
        file.perturbations(found.attacks[0])


def test_a_stopped_attack_goes_on_to_the_same_bytes(run, attacked, tmp_path):
    whole = (attacked[0] / ATTACKS).read_bytes()
    path = shutil.copytree(run.folder.path, tmp_path / "run")
    attack(path, SPEC, images=3, allow_code=True)
    early = (path / ATTACKS).read_bytes()
    assert whole.startswith(early) and early
    with (path / ATTACKS).open("ab") as stream:
        stream.write(b'{"schema": "certimed/att')  # killed in the middle of a line
    assert not verify(path).ok
    attack(path, SPEC, allow_code=True)
    assert (path / ATTACKS).read_bytes() == whole
    attack(path, SPEC, allow_code=True)
    assert (path / ATTACKS).read_bytes() == whole
    assert verify(path).ok


def test_attacks_of_shards_are_merged_with_them(images, run, attacked, tmp_path):
    parts = [full_run(class_spec(images, budget=200), tmp_path / f"{i}", shard=f"{i}/2").folder.path for i in (1, 2)]
    for part in parts:
        attack(part, SPEC, allow_code=True)
    merged = merge(parts, tmp_path / "merged").path
    assert sorted((merged / ATTACKS).read_text().splitlines()) == sorted(
        (attacked[0] / ATTACKS).read_text().splitlines()
    )
    assert verify(merged).ok and verify(merged).digest == verify(attacked[0]).digest
    forged = shutil.copytree(parts[0], tmp_path / "forged")
    (forged / ATTACKS).write_text((forged / ATTACKS).read_text().replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(InputError, match="was changed after it was written"):
        merge([forged, parts[1]], tmp_path / "other")


def test_further_attacks_are_added_and_only_make_the_sandwich_thinner(run, attacked, tmp_path):
    path = shutil.copytree(attacked[0], tmp_path / "run")
    before = {row["item"]: row["broken"] for row in attacked[1].rows()}
    found = attack(path, AttackSpec(steps=3, copies=8, bisections=8, n=2000), allow_code=True)
    after = {row["item"]: row["broken"] for row in found.rows()}
    assert len(found.attacks) == 2 * len(before)
    assert all(after[item] <= before[item] for item in before)
    assert sum(after.values()) < sum(before.values())
    assert found.summary()[0]["allowed"] == pytest.approx(3e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(radius=data["radius"] * 2), "no certificate"),
        (lambda data: data["trials"][0]["judged"].update(p_value=0.5), "which its counts give"),
        (lambda data: data["trials"][data["broken"]]["judged"].update(p_value=0.0), "which its counts give"),
        (lambda data: data["trials"][0]["judged"].update(status="broken"), "its counts make it"),
        (lambda data: data["trials"][0]["judged"].update(counts=[1, 2]), "are not of 400 samples"),
        (lambda data: data["trials"][1].update(norm=9.0), "outside its radius"),
        (lambda data: data.update(broken=0), "is not the trial that broke"),
        (lambda data: data.update(base_norm=data["base_norm"] / 2), "the norm of base"),
        (lambda data: data["perturbations"].pop("base"), "it keeps perturbations"),
        (lambda data: data["trials"].extend(data["trials"]), "its level is for"),
        (lambda data: data.pop("dice"), "'dice' is missing"),
    ],
)
def test_a_forged_attack_is_found_though_it_is_sealed(run, tmp_path, change, said):
    path = shutil.copytree(run.folder.path, tmp_path / "run")
    attack(path, SPEC, images=3, allow_code=True)
    verdict = verify(changed(path, tmp_path / "forged", change))
    assert [fault for where, fault in verdict.faults if said in fault], verdict.faults
    assert all(where.startswith(ATTACKS) for where, _ in verdict.faults)


def test_an_edited_line_is_named(attacked, tmp_path):
    path = shutil.copytree(attacked[0], tmp_path / "run")
    text = (path / ATTACKS).read_text()
    (path / ATTACKS).write_text(text.replace('"reference": 0', '"reference": 1', 1))
    with pytest.raises(InputError, match="was changed after it was written"):
        Sandwich.of(RunFolder.open(path))


def test_success_inside_a_certificate_is_loud(attacked):
    """Radii that are not the run's: what it would look like if certificates were wrong."""
    from dataclasses import replace

    inflated = Sandwich(tuple(replace(one, radius=3 * one.radius) for one in attacked[1].attacks))
    (summary,) = inflated.summary()
    assert summary["inside"] == summary["attacked"] and summary["contradicted"]
    assert summary["p_value"] == pytest.approx(0.002 ** summary["attacked"], rel=1e-6)
    (sentence,) = inflated.findings()
    assert "are contradicted" in sentence
    frozen = Sandwich(tuple(replace(one, scope="frozen at x") for one in inflated.attacks))
    assert not frozen.summary()[0]["contradicted"]
    (sentence,) = frozen.findings()
    assert "went through what they hold fixed" in sentence


def test_masks_have_both_sides_of_their_dice(tmp_path):
    done = full_run(mask_spec(write_scans(tmp_path / "scans", 2)), tmp_path / "run")
    found = attack(done, AttackSpec(steps=5, copies=8, bisections=6, n=1000), allow_code=True)
    assert len(found.attacks) == 2
    for row in found.rows():
        assert row["guaranteed_dice"] <= row["reached_dice"] <= 1
        assert not row["inside"] and 0.3 < row["broken"] < 0.45  # a single pixel's way to one half, and the test's
    assert verify(done.folder.path).ok


def test_what_cannot_be_attacked_is_refused(run, images, tmp_path):
    path = shutil.copytree(run.folder.path, tmp_path / "run")
    with pytest.raises(InputError, match="none of this run, which has plain"):
        attack(path, SPEC, methods=["few-shot"], allow_code=True)
    with pytest.raises(InputError, match="not both"):
        attack(path, SPEC, steps=3, allow_code=True)
    with pytest.raises(InputError, match="the settings of an attack"):
        attack(path, stepps=3, allow_code=True)
    other = RunSpec.from_dict(run.spec.to_dict()).changed(model="python:tiny_models:shifted")
    with pytest.raises(InputError, match=r"model\.identity was"):
        attack(path, SPEC, job=other.load(allow_code=True))
    assert not (path / ATTACKS).exists()


def test_a_run_of_measurements_is_refused(tmp_path):
    measurements(write_scans(tmp_path / "scans", 1), tmp_path / "run")
    with pytest.raises(InputError, match="certifies measurements alone, and attacks are on classes and masks"):
        attack(tmp_path / "run", SPEC, allow_code=True)


def test_the_command_line_attacks_and_says_what_was_found(run, tmp_path):
    path = shutil.copytree(run.folder.path, tmp_path / "run")
    few = ("--steps", 3, "--copies", 8, "--bisections", 3, "--n", 400, "--images", 3)
    assert "consent" in refused("attack", path, *few) or "--allow-code" in refused("attack", path, *few)
    said = call("attack", path, *few, "--allow-code")
    assert "broken at" in said.err and "plain" in said.out
    again = call("attack", path, *few, "--allow-code")
    assert "0 certificates to attack" in again.err and again.out == said.out
    found = call("attack", path, *few, "--radius", "0.05,0.1", "--allow-code")
    assert "inside a certificate" not in found.text
    assert "--radius x is not a list" in refused("attack", path, "--radius", "x")
