"""The benchmark judges budgets by replaying recorded runs: a replay must be what the engine would have done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.performance import profiles
from benchmarks.performance.bars import bars, loop_ratio
from benchmarks.performance.recordings import Run
from benchmarks.performance.replay import ALPHA, BETTING, GRID, budgets, compare, orders, replay
from benchmarks.performance.report import write_report
from benchmarks.performance.sections import DECIDES, SECTIONS, Plan, fits, load_results, section_path
from benchmarks.performance.settings import FULL, QUICK
from benchmarks.reference import cohen_promptsmooth, segcertify
from certimed.budgets import Fixed
from certimed.classification import SmoothedClassifier
from certimed.engine import noisy_batches
from certimed.noise import Float32Gaussian, NoiseKey, NoiseStream

ROOT = Path(__file__).parents[2]
SIGMA, N0, N = 0.25, 50, 1_000


def bands(x: torch.Tensor) -> torch.Tensor:
    """Three classes by the mean of a few pixels."""
    value = x.flatten(1)[:, :4].mean(dim=1, keepdim=True)
    return -((value - torch.tensor([0.1, 0.5, 0.9])) ** 2)


def recorded(image: torch.Tensor, item: str) -> Run:
    law, won = Float32Gaussian(SIGMA), []
    for phase, count in (("selection", N0), ("estimation", N)):
        batches = noisy_batches(image, law, NoiseKey(0, item, phase), count, batch_size=64)
        won.append(torch.cat([bands(batch).argmax(1) for batch in batches]))
    return Run(0, 1, "plain", SIGMA, 3, *(part.to(torch.uint8).numpy() for part in won))


@pytest.mark.parametrize("level", [0.5, 0.62, 0.68, 0.95])
def test_a_replay_is_what_the_engine_does(level: float) -> None:
    image = torch.full((1, 6, 6), level)
    run = recorded(image, "a")
    smoothed = SmoothedClassifier(bands, 3, SIGMA, noise="float32")
    for title, budget in {**budgets(SIGMA, N), "fixed": Fixed(N)}.items():
        made = smoothed.certify(image, n0=N0, budget=budget, item_id="a", alpha=ALPHA)
        answer = replay(budget, run)
        assert (answer.samples, answer.prediction, answer.radius) == (made.n, made.prediction, made.radius), title


def test_a_fixed_replay_is_the_published_loop() -> None:
    image = torch.full((1, 6, 6), 0.62)
    streams = [NoiseStream(NoiseKey(0, "a", phase), (1, 6, 6)) for phase in ("selection", "estimation")]
    draws = (streams[0].draw, streams[1].draw)
    expected = cohen_promptsmooth.certify(bands, 3, image, SIGMA, draws, n0=N0, n=N, alpha=ALPHA, batch_size=64)
    answer = replay(Fixed(N), recorded(image, "a"))
    assert answer.prediction == expected.prediction
    assert answer.radius == pytest.approx(expected.radius, rel=1e-9)


def test_orders_keep_the_samples() -> None:
    run = recorded(torch.full((1, 6, 6), 0.62), "a")
    shuffled = orders(run, 3)
    assert shuffled[0] is run
    assert len({one.estimation.tobytes() for one in shuffled}) == 3
    assert all(np.array_equal(np.bincount(one.estimation), np.bincount(run.estimation)) for one in shuffled)


def test_comparison_counts_decisions_and_accuracy() -> None:
    sure = np.zeros(N, dtype=np.uint8)
    unsure = (np.arange(N) % 2).astype(np.uint8)
    first = np.zeros(N0, dtype=np.uint8)
    runs = [
        ("set", Run(0, 0, "plain", SIGMA, 2, first, sure)),
        ("set", Run(1, 1, "plain", SIGMA, 2, first, sure)),
        ("set", Run(2, 0, "plain", SIGMA, 2, first, unsure)),
    ]
    found = compare(runs, 1)
    assert found["runs"] == 3 and found["images"] == {"set": 3}
    one = found["all"][GRID]
    assert one["same decision"] == 1.0
    # One image of three is right and certified, one is certified for the wrong class, one abstains.
    assert one["accuracy"]["0.25"]["fixed n"][0] == pytest.approx(1 / 3)
    assert one["accuracy difference"] == 0.0
    assert found["all"][BETTING]["samples"] < 200


def test_likely_runs_follow_the_counts(tmp_path: Path) -> None:
    content = {"set": {"0.5": {"plain": [[1, 0, 900, 100], [0, 1000, 0, 0]]}}}
    path = tmp_path / profiles.FILE
    path.write_text(json.dumps(content))
    runs = [run for _, run in profiles.likely_runs(path, 100, 20_000)]
    assert [run.label for run in runs] == [1, 0] and runs[0].classes == 3 and runs[0].sigma == 0.5
    assert (runs[0].estimation == 1).mean() == pytest.approx(0.9, abs=0.05)
    assert (runs[1].estimation == 0).mean() > 0.99


def test_many_classes_do_not_make_a_sure_image_look_unsure() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([0, 1_000, *[0] * 20])
    doubts = [1 - profiles.likely_probabilities(counts, rng)[1] for _ in range(2_000)]
    assert np.mean(doubts) == pytest.approx(0.5 / 1_001, rel=0.15)
    assert profiles.likely_probabilities(counts, rng).sum() == pytest.approx(1.0)


def test_kept_profiles_serve_where_there_are_no_studies(tmp_path: Path) -> None:
    path = profiles.collect(tmp_path / "nowhere", tmp_path)
    assert path == profiles.KEPT and len(list(profiles.likely_runs(path, 10, 10, every=50))) > 20


def test_published_tests_agree_with_the_threshold() -> None:
    from benchmarks.performance.segmentation import agreement_counts, our_tests, published_tests

    counts = agreement_counts(24, 100)
    assert np.array_equal(published_tests(counts, 100), our_tests(counts, 100))
    assert 0 < our_tests(counts, 100).mean() < 1
    few = np.full((3, 3), 60)
    assert not segcertify.test_pixels(few.ravel(), 100, tau=0.75, alpha=ALPHA).any() and not our_tests(few, 100).any()


def spread(*values: float) -> dict[str, object]:
    return {"median": sorted(values)[len(values) // 2], "low": min(values), "high": max(values), "values": list(values)}


def some_results(speed: float) -> dict[str, dict[str, object]]:
    """A loop section and a study section of round numbers."""
    sides = ("published loop", "certimed, float32", "certimed, bfloat16")
    loop = {
        "parameters": "small",
        "samples": 200,
        "classes": 9,
        "seconds a sample": dict(zip(sides, (spread(1.0), spread(1.0), spread(1.0 / speed)))),
        "speed-up a sample": {sides[1]: spread(1.0), sides[2]: spread(speed)},
        "bfloat16 over float32": spread(speed),
        "equal counts": True,
        "forward share": {side: spread(0.96) for side in sides[1:]},
    }
    runs = [("set", Run(0, 0, "plain", 0.25, 2, np.zeros(100, np.uint8), np.zeros(10_000, np.uint8)))]
    about = {
        "bfloat16": ["amx_bf16"],
        "load": 0.1,
        "cores": 2,
        "threads": 1,
        "processor": "x",
        "python": "3",
        "torch": "2",
    }
    common = {"settings": {"name": "full"}, "machine": about, "seconds": 1.0}
    return {"loop": {**common, "result": loop}, "study": {**common, "result": compare(runs, 1)}}


def test_bars_are_judged_and_missing_ones_said() -> None:
    verdicts = {bar.bar: bar for bar in bars(some_results(1.5))}
    low = next(bar for name, bar in verdicts.items() if name.startswith("bfloat16"))
    assert low.met is False and low.measured.startswith("1.50 x")
    assert next(bar for name, bar in verdicts.items() if "PLIP-size model: >= 97%" in name).met is False
    assert verdicts["peak memory flat in n for every budget"].met is None
    assert next(bar for bar in bars(some_results(1.9)) if bar.bar.startswith("bfloat16")).met is True


def test_time_against_the_published_loop_is_samples_times_time() -> None:
    results = some_results(2.0)
    found = loop_ratio(results, "certimed, bfloat16")
    assert found is not None
    samples = results["study"]["result"]["sigmas"]["0.25"][GRID]["samples"]  # type: ignore[index]
    assert found["ratio"]["median"] == pytest.approx(2.0 * 10_100 / (100 + samples))
    assert found["ours"]["0.25"] == pytest.approx((100 + samples) * 0.5)


def test_the_report_says_what_was_not_measured(tmp_path: Path) -> None:
    path = write_report(some_results(2.0), {}, tmp_path / "performance.md")
    text = path.read_text()
    assert "not measured" in text and "| yes |" in text and "**Multiplied**" in text
    assert write_report({}, {}, tmp_path / "empty.md").read_text().count("not measured") >= 8


def test_a_section_is_measured_once_for_its_settings(tmp_path: Path) -> None:
    from benchmarks.home import Places

    places = Places(tmp_path, tmp_path, tmp_path)
    path = section_path(tmp_path, "art")
    settings = json.loads(json.dumps(asdict(QUICK)))
    path.write_text(json.dumps({"section": "art", "settings": settings, "result": {"missing": "pip"}}))
    assert fits("art", path, Plan(QUICK, places)) and not fits("art", path, Plan(FULL, places))
    assert fits("art", path, Plan(replace(QUICK, recorded=9), places))
    assert not fits("art", path, Plan(replace(QUICK, n=999), places))
    assert not fits("art", path, Plan(QUICK, places, art_python="python"))
    assert set(DECIDES) == set(SECTIONS)
    assert set(load_results(tmp_path)) == {"art"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quick_run_measures_every_section(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-m", "benchmarks.performance", "--quick", "--out", str(tmp_path)]
    subprocess.run([*command, "--models", str(tmp_path / "plain")], cwd=ROOT, check=True, env={**os.environ})
    text = (tmp_path / "performance.md").read_text()
    assert set(load_results(tmp_path / "results")) == set(SECTIONS)
    assert "quick run" in text and (tmp_path / "figures" / "performance-growth.png").is_file()
    assert text.count("not measured") == 1  # the other toolbox, which needs its own environment
