"""The study's report: what is lost, what is recovered, and a section that can be written again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.study_report import MARKER, mask_reading, readings, recovery, study_section, write_section
from certimed.errors import InputError

BEGIN, END = f"<!-- {MARKER}: begin -->", f"<!-- {MARKER}: end -->"
RADII = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5]


def method(clean: float, at_zero: float, scope: str = "end-to-end") -> dict[str, Any]:
    curve = [at_zero * 0.5**i for i in range(len(RADII))]
    return {
        "scope": scope,
        "clean": clean,
        "noisy": at_zero,
        "certified": curve,
        "intervals": [[value, value] for value in curve],
        "lower": curve,
        "too_few_samples": 0.0,
        "unstable": 0.0,
    }


def at_sigma(clean: float, plain: float, few: float, shared: float, probe: float, single: float) -> dict[str, Any]:
    def by(value: float) -> dict[str, float]:
        return {"mean": value, "low": value, "high": value}

    return {
        "methods": {"plain": method(clean, plain), "few-shot": method(clean, few), "both": method(0.9, 0.9, "frozen")},
        "differences": {
            "few-shot - plain": by(few - plain),
            "few-shot, shared - plain": by(shared - plain),
            "linear probe - plain": by(probe - plain),
            "few-shot, one sigma - few-shot": by(single - few),
        },
    }


def study(**sigmas: dict[str, Any]) -> dict[str, Any]:
    setting = {"images": 100, "n0": 100, "n": 1000, "alpha": 0.001, "shots": 16, "seed": 0}
    return {
        "set": "demo",
        "setting": setting,
        "model": {"input_shape": [3, 112, 112]},
        "classes": 11,
        "radii": RADII,
        "sigmas": sigmas,
        "unfinished": [0.1],
    }


def test_shares_of_the_loss() -> None:
    found = recovery(at_sigma(clean=0.9, plain=0.4, few=0.7, shared=0.65, probe=0.8, single=0.72))
    assert found["loss"] == pytest.approx(0.5)
    assert found["share"] == pytest.approx(0.6) and found["shared-share"] == pytest.approx(0.5)
    assert found["of-probe"] == pytest.approx(0.75)
    nothing = recovery(at_sigma(clean=0.4, plain=0.4, few=0.4, shared=0.4, probe=0.4, single=0.4))
    assert nothing["share"] is None and nothing["of-probe"] is None


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ((0.9, 0.4, 0.7, 0.7, 0.8, 0.72), "recovers 60 % of the 50 points lost: at least half."),
        (
            (0.9, 0.4, 0.6, 0.6, 0.62, 0.6),
            "less than half; the probe recovers 22 points, few-shot 91 % of that (at least",
        ),
        ((0.9, 0.4, 0.5, 0.5, 0.7, 0.5), "few-shot 33 % of that (less than 80 %)"),
        ((0.9, 0.4, 0.4, 0.4, 0.4, 0.4), "the probe recovers nothing"),
        ((0.9, 0.8, 0.85, 0.8, 0.8, 0.85), "loses 10 points, too little to judge"),
    ],
)
def test_each_case_is_read_as_it_is(figures: tuple[float, ...], said: str) -> None:
    assert said in readings(study(**{"0.5": at_sigma(*figures)}))[0]


def test_one_prompt_for_all_sigmas_is_judged_by_the_gap() -> None:
    near, far = (at_sigma(0.9, 0.4, 0.7, 0.7, 0.8, single) for single in (0.74, 0.76))
    assert "is within 5 points" in readings(study(**{"0.5": near}))[0]
    assert "is NOT within 5 points of the prompt for this sigma (+6.0)" in readings(study(**{"0.5": far}))[0]


def test_the_section_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    one = study(**{"0.5": at_sigma(0.9, 0.4, 0.7, 0.7, 0.8, 0.7)})
    path = tmp_path / "docs" / "results.md"
    write_section(path, [one])
    path.write_text(path.read_text() + "\n## Other results\n\nkept\n")
    before = path.read_text()
    write_section(path, [one])
    assert path.read_text() == before and before.count(BEGIN) == before.count(END) == 1
    assert "Not certified yet: sigma 0.1." in before
    assert "| 0.5 | both* |" in before and "| 0.5 | few-shot |" in before
    write_section(path, [one, {**one, "set": "kermany"}])
    assert path.read_text().endswith("\n## Other results\n\nkept\n") and "Kermany" in path.read_text()
    path.write_text(BEGIN)
    with pytest.raises(InputError, match="only one of the markers"):
        write_section(path, [one])
    with pytest.raises(InputError, match="no results to report"):
        write_section(path, [])


def test_tables_have_one_cell_a_column() -> None:
    text = study_section(study(**{"0.5": at_sigma(0.9, 0.4, 0.7, 0.7, 0.8, 0.7)}))
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def masks(
    clean: float, plain: float, denoised: float, classes: tuple[str, ...] = ("background", "lung")
) -> dict[str, Any]:
    def row(guaranteed: float) -> dict[str, Any]:
        cell = {"mean": guaranteed, "low": guaranteed, "high": guaranteed}
        names = ("Dice (noisy)", "certified Dice (published)", "guaranteed Dice", "best-case Dice", "guaranteed IoU")
        foreground = {name: cell for name in names} | {"Dice (clean)": {"mean": clean, "low": clean, "high": clean}}
        return {"foreground": foreground, "classes": {name: cell for name in classes[1:]}, "abstained": 0.125}

    return {
        "set": "jsrt",
        "setting": {"images": 50, "n0": 10, "n": 100, "bfloat16": True, "seed": 0},
        "classes": list(classes),
        "groups": None,
        "sigmas": {"0.5": {"radius": 0.337, "methods": {"plain": row(plain), "denoised": row(denoised)}}},
    }


@pytest.mark.parametrize(
    ("figures", "met"),
    [((0.9, 0.1, 0.45), True), ((0.9, 0.7, 0.79), True), ((0.9, 0.3, 0.5), False)],
    ids=["raised enough", "near the clean Dice", "neither"],
)
def test_the_aim_of_the_denoiser_is_judged(figures: tuple[float, float, float], met: bool) -> None:
    assert mask_reading(masks(*figures)).endswith(" is met." if met else " is NOT met.")


def test_the_segmentation_section_stands_beside_the_other(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    write_section(path, [study(**{"0.5": at_sigma(0.9, 0.4, 0.7, 0.7, 0.8, 0.7)})])
    before = path.read_text()
    several = masks(0.9, 0.1, 0.8, ("background", "right lung", "heart"))
    write_section(path, [masks(0.9, 0.1, 0.8), several])
    text = path.read_text()
    assert text.startswith(before.rstrip()) and "| sigma | right lung | heart |" in text
    assert "| 0.5 | 0.337 | denoised | 0.900 |" in text and "12.5 %" in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    with pytest.raises(InputError, match="no results to report"):
        write_section(path, [])
