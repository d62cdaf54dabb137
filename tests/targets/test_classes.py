"""SmoothedClassifier against closed forms: a linear classifier's true radius is known exactly."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm

from certimed import InputError, ModelError, SmoothedClassifier
from certimed.certificates import TOO_FEW_SAMPLES, UNSTABLE
from certimed.noise import NoiseKey
from certimed.sampling import count_classes, default_batch_size, noisy_batches
from certimed.statistics import clopper_pearson_lower, radius_from_lower


class Linear:
    """Class 1 where w.(x - x0) > -margin * |w|: at x0 the true certified radius is ``margin``, in any dimension."""

    def __init__(self, shape, margin, seed=0):
        self.x0 = torch.full(shape, 0.5)
        direction = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.direction = (direction / direction.norm()).float()
        self.margin = margin

    def __call__(self, x):
        score = ((x - self.x0) * self.direction).flatten(1).sum(1) + self.margin
        return torch.stack([-score, score], dim=1)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 16, 16), (3, 64, 64), (3, 224, 224)])
def test_radius_does_not_depend_on_the_dimension(shape):
    model, sigma, n = Linear(shape, margin=0.3), 0.25, 1000
    certificate = SmoothedClassifier(model, 2, sigma).certify(model.x0, n0=20, n=n, alpha=1e-3, seed=3)
    p = norm.cdf(0.3 / sigma)
    low, high = binom.ppf([1e-6, 1 - 1e-6], n, p)
    assert low <= certificate.counts[1] <= high
    assert certificate.prediction == 1
    assert not certificate.abstained
    assert certificate.radius == radius_from_lower(clopper_pearson_lower(certificate.counts[1], n, 1e-3), sigma)


def test_certified_radius_exceeds_the_true_one_in_at_most_alpha_of_runs():
    runs, alpha, n = 2000, 0.05, 400
    model = Linear((1, 1, 3), margin=0.4)
    smoothed = SmoothedClassifier(model, 2, 0.5)
    exceeded = sum(
        smoothed.certify(model.x0, n0=10, n=n, alpha=alpha, seed=seed, item_id="x").radius > model.margin
        for seed in range(runs)
    )
    assert exceeded <= alpha * runs + 3 * math.sqrt(runs * alpha * (1 - alpha))
    # And it is not idle: Clopper-Pearson at this p fails nearly as often as it may.
    assert exceeded >= 0.5 * alpha * runs


@pytest.mark.parametrize("margin_in_sigma", [0.2, 0.5, 0.8, 1.1, 1.5])
def test_no_looseness_beyond_clopper_pearson(margin_in_sigma):
    sigma, n, alpha, seeds = 0.5, 10_000, 1e-3, 20
    model = Linear((1, 1, 3), margin=margin_in_sigma * sigma)
    smoothed = SmoothedClassifier(model, 2, sigma)
    radii = [smoothed.certify(model.x0, n=n, alpha=alpha, seed=s, item_id="x").radius for s in range(seeds)]
    expected = float(radius_from_lower(clopper_pearson_lower(round(n * norm.cdf(margin_in_sigma)), n, alpha), sigma))
    standard_error = np.std(radii, ddof=1) / math.sqrt(seeds)
    assert abs(np.mean(radii) - expected) <= 0.01 * expected + 3 * standard_error


def test_certificate_does_not_depend_on_company_order_or_batch_size():
    generator = torch.Generator().manual_seed(1)
    images = {f"image-{i}": torch.rand(1, 6, 6, generator=generator) for i in range(8)}
    smoothed = SmoothedClassifier(Linear((1, 6, 6), margin=0.1), 2, 0.25)
    alone = {name: smoothed.certify(image, n=500, item_id=name) for name, image in images.items()}
    shuffled = {c.item: c for c in smoothed.certify_many(reversed(images.items()), n=500)}
    batches = {name: smoothed.certify(image, n=500, item_id=name, batch_size=7) for name, image in images.items()}
    assert alone == shuffled == batches


def test_item_id_defaults_to_the_content():
    model = Linear((1, 4, 4), margin=0.05)
    smoothed = SmoothedClassifier(model, 2, 0.5)
    assert smoothed.certify(model.x0, n=100) == smoothed.certify(model.x0.clone(), n=100)
    assert smoothed.certify(model.x0, n=100).item.startswith("sha256:")


def test_repeated_item_ids_are_refused():
    model = Linear((1, 4, 4), margin=0.05)
    pairs = [("a", model.x0), ("a", model.x0)]
    with pytest.raises(InputError, match="comes twice"):
        list(SmoothedClassifier(model, 2, 0.5).certify_many(pairs, n=10))


def test_selection_and_estimation_samples_are_disjoint():
    model = Linear((1, 1, 400), margin=0.0)
    selection, estimation = (
        torch.cat(list(noisy_batches(model.x0, 1.0, NoiseKey(0, "x", phase), 64)))
        for phase in ("selection", "estimation")
    )
    overlap = (selection.flatten(1)[:, None] == estimation.flatten(1)[None]).all(-1)
    assert not overlap.any()


def test_abstention_says_why():
    undecided = Linear((1, 1, 3), margin=0.0)
    unstable = SmoothedClassifier(undecided, 2, 0.5).certify(undecided.x0, n0=1, n=2000, seed=0)
    assert unstable.abstained
    assert unstable.radius == 0.0
    barely = Linear((1, 1, 3), margin=0.25)
    few = SmoothedClassifier(barely, 2, 0.5).certify(barely.x0, n0=100, n=20, seed=0)
    assert few.abstained
    assert few.abstention == TOO_FEW_SAMPLES
    assert unstable.abstention in (UNSTABLE, TOO_FEW_SAMPLES)
    three = lambda x: torch.nn.functional.one_hot((x.flatten(1)[:, 0] * 1e6).long() % 3, 3).float()  # noqa: E731
    assert SmoothedClassifier(three, 3, 0.5).certify(undecided.x0, n=900).abstention == UNSTABLE


def test_two_sided_bound_certifies_without_a_majority():
    class Spread:
        def __call__(self, x):
            u = torch.special.ndtr((x - 0.5).flatten(1)[:, 0])
            scores = torch.zeros(len(x), 12)
            index = torch.where(u < 0.45, 0, 1 + ((u - 0.45) / 0.05).long().clamp(max=10))
            return scores.scatter(1, index[:, None], 1.0)

    smoothed = SmoothedClassifier(Spread(), 12, 1.0)
    image = torch.full((1, 1, 3), 0.5)
    assert smoothed.certify(image, n=2000).abstained
    assert smoothed.certify(image, n=2000, bound="two-sided").radius > 0.4
    assert smoothed.certify(image, n=2000, bound="best").radius > 0.4


def test_predict_follows_the_binomial_test():
    model = Linear((1, 1, 3), margin=0.3)
    sure = SmoothedClassifier(model, 2, 0.25).predict(model.x0, n=200)
    assert (sure.prediction, sure.abstained) == (1, False)
    torn = Linear((1, 1, 3), margin=0.0)
    answers = [SmoothedClassifier(torn, 2, 0.25).predict(torn.x0, n=100, alpha=0.05, seed=s) for s in range(200)]
    assert sum(not a.abstained for a in answers) <= 0.05 * 200 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_counts_see_every_sample_once():
    seen = []
    image = torch.full((1, 2, 2), 0.5)

    def model(x):
        seen.append(len(x))
        return torch.zeros(len(x), 3)

    key = NoiseKey(0, "x", "estimation")
    counts = count_classes(model, image, sigma=1.0, key=key, n=103, num_classes=3, batch_size=10)
    assert counts.tolist() == [103, 0, 0]
    assert seen == [10] * 10 + [3]


def test_model_contract_is_enforced():
    image = torch.full((1, 2, 2), 0.5)
    with pytest.raises(ModelError, match=r"\(5, 3\)|expected"):
        SmoothedClassifier(lambda x: torch.zeros(len(x), 2), 3, 0.5).certify(image, n=5)
    with pytest.raises(ModelError, match="not finite"):
        SmoothedClassifier(lambda x: torch.full((len(x), 2), math.nan), 2, 0.5).certify(image, n=5)
    with pytest.raises(ModelError, match="training mode"):
        SmoothedClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), 2, 0.5)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(1, 2, 2, dtype=torch.uint8), "dtype"),
        (torch.full((1, 2, 2), 200.0), "scale them"),
        (torch.full((1, 2, 2), math.nan), "not finite"),
        (torch.zeros(0, 2, 2), "shape"),
    ],
)
def test_images_out_of_range_are_refused(image, words):
    with pytest.raises(InputError, match=words):
        SmoothedClassifier(lambda x: torch.zeros(len(x), 2), 2, 0.5).certify(image, n=5)


@pytest.mark.parametrize(
    "arguments", [{"n": 0}, {"n0": 0}, {"alpha": 0.0}, {"alpha": 1.0}, {"batch_size": -1}, {"bound": "three-sided"}]
)
def test_impossible_settings_are_refused(arguments):
    model = Linear((1, 2, 2), margin=0.1)
    with pytest.raises(InputError):
        SmoothedClassifier(model, 2, 0.5).certify(model.x0, **({"n": 10} | arguments))


@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf, "0.5"])
def test_impossible_sigma_is_refused(sigma):
    with pytest.raises(InputError, match="sigma"):
        SmoothedClassifier(lambda x: torch.zeros(len(x), 2), 2, sigma)


def test_default_batch_is_bounded_in_bytes():
    assert default_batch_size((3, 224, 224)) * 3 * 224 * 224 * 4 <= 8 * 2**20
    assert default_batch_size((3, 224, 224), "cuda") > default_batch_size((3, 224, 224))
    assert default_batch_size((1, 1, 3)) == 1024
    assert default_batch_size((3, 5000, 5000)) == 1
