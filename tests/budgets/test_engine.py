"""Budgets inside the engine: the first samples of the fixed run, for every method and in any run, and verified."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import Certify, brightness, lines, manifest, open_images, write_images
from toys import CLASS_NAMES, TinyVLM, class_images

from certimed.budgets import Betting, Budget, Fixed, Grid, Looks, Precision, as_budget
from certimed.certificates import TOO_FEW_SAMPLES, UNSTABLE, ClassCertificate
from certimed.classification import SmoothedClassifier
from certimed.data import MedicalImage
from certimed.errors import InputError
from certimed.noise import NoiseKey
from certimed.prompts import FixedText, PromptComparison, SplitSmoothedClassifier, few_shot, prompt_methods
from certimed.runs import RunFolder, Shard, certify_dataset
from certimed.sampling import count_classes
from certimed.statistics import class_bound
from certimed.verification import verify
from certimed.verification.classes import class_faults

BUDGETS: list[Budget] = [
    Fixed(300),
    Grid((0.0, 0.1, 0.25), 2_000),
    Looks((50, 200, 800), (0.0, 0.1)),
    Betting(0.05, 2_000),
    Precision(n=2_000),
]
LEVELS = (0.5, 0.505, 0.52, 0.6, 0.9)


def image(level: float) -> torch.Tensor:
    """A grey square; "light" wins with probability Phi(4 (level - 0.5) / sigma)."""
    return torch.full((1, 4, 4), level)


SMOOTHED = SmoothedClassifier(brightness, 2, 0.25)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("level", LEVELS)
def test_samples_are_the_first_ones_of_the_stream_and_the_certificate_verifies(budget: Budget, level: float) -> None:
    made = SMOOTHED.certify(image(level), budget=budget, n0=50, seed=2, item_id="x")
    counted = count_classes(
        brightness, image(level), sigma=0.25, key=NoiseKey(2, "x", "estimation"), n=made.n, num_classes=2
    )
    assert made.counts == tuple(counted)
    assert made.n <= budget.cap and as_budget(made.budget) == budget
    assert list(class_faults(json.loads(made.to_json()))) == []
    assert SMOOTHED.certify(image(level), budget=str(budget), n0=50, seed=2, item_id="x") == made
    assert SMOOTHED.certify(image(level), budget=budget, n0=50, seed=2, item_id="x", batch_size=7) == made
    (many,) = SMOOTHED.certify_many([("x", image(level))], budget=budget, n0=50, seed=2)
    assert many == made


@pytest.mark.parametrize("bound", ["one-sided", "two-sided", "best"])
def test_a_fixed_number_is_the_published_procedure(bound: str) -> None:
    short = SMOOTHED.certify(image(0.55), n=400, n0=50, bound=bound)
    assert short == SMOOTHED.certify(image(0.55), budget=400, n0=50, bound=bound)
    proved = class_bound(np.array(short.counts), short.prediction, 1e-3, 0.25, bound)
    assert (short.p_lower, short.q_upper, short.radius) == (proved.p_lower, proved.q_upper, proved.radius)
    assert (short.budget, short.looks, short.stopped) == ("fixed:400", 1, "cap reached: 400 samples")
    assert short.proved_at == short.counts
    assert "budget" not in short.statement()


def test_without_any_number_the_published_radii_are_answered() -> None:
    made = SMOOTHED.certify(image(0.65))
    assert as_budget(made.budget) == Grid() == as_budget()
    assert made.n < 5_000 and made.radius > 0.5
    assert f"{made.n} under budget grid@10000 (answered" in made.statement()
    assert f"n={made.n} of grid@10000" in repr(made)
    assert "grid@10000" in made._repr_html_()


@pytest.mark.parametrize("budget", ["grid", 5_000, Grid()])
def test_two_numbers_are_refused(budget: Budget | int | str) -> None:
    with pytest.raises(InputError, match="both say how many"):
        SMOOTHED.certify(image(0.9), budget=budget, n=100)
    with pytest.raises(InputError):
        SMOOTHED.certify(image(0.9), budget="guess")


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, Betting(9.0)])
def test_budgets_that_are_none_are_refused(budget: object) -> None:
    with pytest.raises(InputError):
        SMOOTHED.certify(image(0.9), budget=budget)  # type: ignore[arg-type]


def test_abstentions_under_a_budget_say_whether_more_samples_would_help() -> None:
    def abstention(level: float, budget: Budget) -> str | None:
        return SMOOTHED.certify(image(level), budget=budget, n0=200, seed=1, item_id="x").abstention

    three = SmoothedClassifier(lambda x: torch.eye(3)[(x.flatten(1)[:, 0] * 1e6).long() % 3], 3, 0.25)
    lost = three.certify(image(0.5), budget=Grid())
    assert lost.abstention == UNSTABLE and lost.stop == "futile" and lost.n < 1_000
    assert abstention(0.504, Grid(n=1_000)) == TOO_FEW_SAMPLES
    # A bet on 0.2 at a true radius of 0.04: the majority holds, and no number of samples will win the bet.
    assert abstention(0.51, Betting(0.2)) == UNSTABLE
    assert SMOOTHED.certify(image(0.556), budget=Betting(0.2, 600), n0=200, seed=1).abstention == TOO_FEW_SAMPLES


def test_split_smoothing_takes_budgets_too() -> None:
    split = SplitSmoothedClassifier(lambda tuned, seen: brightness(tuned + seen), 2, 0.25)
    short, full = (split.certify(image(0.7), budget=b, item_id="x") for b in (Grid(n=2_000), Fixed(2_000)))
    assert short.n < full.n == 2_000
    assert short == split.certify(image(0.7), budget="grid@2000", item_id="x", batch_size=9)
    assert list(class_faults(json.loads(short.to_json()))) == []


@pytest.fixture(scope="module")
def world() -> tuple[TinyVLM, list[object], torch.Tensor]:
    vlm = TinyVLM(seed=3)
    images, labels = class_images(vlm, 4)
    learnt = few_shot(vlm, images, labels, CLASS_NAMES, epochs=10, sigmas=(0.0, 0.25))
    names = ("none", "few-shot", "zero-shot", "both", "per-sample", "split")
    methods = prompt_methods(
        vlm, CLASS_NAMES, names, sigma=0.25, context="an H&E image patch of", few_shot=learnt, copies=20, lr=0.02
    )
    return vlm, list(methods), class_images(vlm, 2, seed=9)[0]


@pytest.mark.parametrize("budget", ["grid@1500", "precision@1500", "betting:0.05@1500"])
def test_each_method_stops_for_itself_and_gets_what_it_gets_alone(world: tuple, budget: str) -> None:
    vlm, methods, images = world
    setting = {"n0": 40, "budget": budget, "batch_size": 32, "seed": 5}
    together = PromptComparison(vlm, methods, 0.25)
    used = set()
    for picture in images[::2]:
        found = together.certify(picture, **setting)
        for method in methods:
            made = found[method.name]
            used.add(made.n)
            assert list(class_faults(json.loads(made.to_json()))) == []
            alone = PromptComparison(vlm, [method], 0.25).certify(picture, **setting)[method.name]
            assert alone.to_json() == made.to_json()
            if isinstance(method, FixedText):
                plain = SmoothedClassifier(method.classifier, 3, 0.25).certify(picture, **setting)
                assert (plain.counts, plain.radius, plain.stopped) == (made.counts, made.radius, made.stopped)
    assert len(used) > 1


def test_a_stream_costs_its_slowest_method_and_no_more(world: tuple) -> None:
    vlm, methods, images = world
    shared = [method for method in methods if method.stream == "plain" and isinstance(method, FixedText)]
    assert len(shared) > 1
    drawn = []
    found = PromptComparison(vlm, shared, 0.25).certify(
        images[0], n0=40, budget="grid@1500", batch_size=32, progress=drawn.append
    )
    assert sum(drawn) == 40 + max(made.n for made in found.values())


def test_the_best_of_several_methods_verifies_under_a_budget(world: tuple) -> None:
    vlm, methods, images = world
    _, best = PromptComparison(vlm, methods[:2], 0.25).certify_best(images[0], n0=40, budget="grid@1500", alpha=0.002)
    assert best.alpha == 0.002 and best.budget == "grid@1500"
    assert list(class_faults(json.loads(best.to_json()))) == []
    assert list(class_faults(json.loads(best.to_json()) | {"notes": []}))


class Adaptive(Certify):
    """The brightness model under a budget."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = {**{k: v for k, v in self.settings.items() if k != "n"}, "budget": "grid@2000"}

    def __call__(self, picture: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
        certificate = self.smoothed.certify(
            torch.from_numpy(picture.pixels), item_id=picture.id, intensity=picture.intensity, n0=10, seed=3,
            budget="grid@2000",
        )  # fmt: skip
        return {"none": 0}, {"none": certificate}


def test_runs_are_equal_line_for_line_resumed_or_sharded_and_a_changed_budget_is_refused(tmp_path: Path) -> None:
    data, certify = open_images(write_images(tmp_path / "images", 12)), Adaptive()
    with RunFolder.create(tmp_path / "whole", manifest(data, certify)) as folder:
        assert len(list(certify_dataset(data, certify, folder))) == 12
    with RunFolder.create(tmp_path / "resumed", manifest(data, certify)) as folder:
        for record, _ in zip(certify_dataset(data, certify, folder), range(5)):
            assert record.status == "certified"
    with RunFolder.resume(tmp_path / "resumed", manifest(data, certify)) as folder:
        list(certify_dataset(data, certify, folder))
    parts = []
    for part in (Shard(1, 2), Shard(2, 2)):
        where = tmp_path / f"part-{part.index}"
        with RunFolder.create(where, manifest(data, certify), shard=part.section(data.ids)) as folder:
            list(certify_dataset(data.subset(part.indices(data.ids)), certify, folder))
        parts += lines(where)
    assert lines(tmp_path / "whole") == lines(tmp_path / "resumed") == sorted(parts)
    assert verify(tmp_path / "whole").ok, verify(tmp_path / "whole").faults
    assert len({json.loads(line)["certificates"]["none"]["n"] for line in parts}) > 3
    other = Adaptive()
    other.settings["budget"] = "grid@10000"
    with pytest.raises(InputError, match=r'settings.budget was "grid@2000" and is now "grid@10000"'):
        RunFolder.resume(tmp_path / "whole", manifest(data, other))
