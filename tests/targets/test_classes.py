"""SmoothedClassifier against closed forms: a linear classifier's true radius is known exactly."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from toys import Linear, brightness, counted, grey, noisy_copies

from certimed import InputError, ModelError, SmoothedClassifier
from certimed.budgets import Grid, Planned, as_budget
from certimed.certificates import TOO_FEW_SAMPLES, UNSTABLE
from certimed.statistics import class_bound, clopper_pearson_lower, predict_p_value, radius_from_lower
from certimed.targets import default_batch_size


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 16, 16), (3, 64, 64), (3, 224, 224)])
def test_radius_does_not_depend_on_the_dimension(shape):
    model, sigma, n = Linear(shape, margin=0.3), 0.25, 1000
    smoothed = SmoothedClassifier(model, 2, sigma)
    certificate = smoothed.certify(model.x0, n0=20, n=n, alpha=1e-3, seed=3)
    p = norm.cdf(0.3 / sigma)
    low, high = binom.ppf([1e-6, 1 - 1e-6], n, p)
    assert low <= certificate.counts[1] <= high
    assert certificate.prediction == 1
    assert not certificate.abstained
    published = float(radius_from_lower(clopper_pearson_lower(certificate.counts[1], n, 1e-3), sigma))
    assert published * (1 - 1e-6) < certificate.radius < published  # the grid's noise is off by parts in 10^9
    exact = SmoothedClassifier(model, 2, sigma, noise="float32").certify(model.x0, n0=20, n=n, alpha=1e-3, seed=3)
    assert exact.radius == radius_from_lower(clopper_pearson_lower(exact.counts[1], n, 1e-3), sigma)


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
    selection, estimation = (noisy_copies(model.x0, 1.0, 0, "x", phase, 64) for phase in ("selection", "estimation"))
    overlap = (selection.flatten(1)[:, None] == estimation.flatten(1)[None]).all(-1)
    assert not overlap.any()


def test_abstention_says_why():
    undecided = Linear((1, 1, 3), margin=0.0)
    unstable = SmoothedClassifier(undecided, 2, 0.5).certify(undecided.x0, n0=1, n=2000, seed=0)
    assert unstable.abstained
    assert unstable.radius == 0.0
    barely = Linear((1, 1, 3), margin=0.25)
    few = SmoothedClassifier(barely, 2, 0.5, noise="float32").certify(barely.x0, n0=100, n=20, seed=0)
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
    assert all(a.abstained == (a.p_value > 0.05) and sum(a.counts) == 100 for a in answers)
    assert sum(not a.abstained for a in answers) <= 0.05 * 200 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_counts_are_of_the_keyed_samples_each_seen_once():
    """By plain arithmetic: the copies of each phase's stream, classified all at once, give the same counts."""
    image, seen = grey(0.55), []

    def model(x):
        seen.append(len(x))
        return brightness(x)

    made = SmoothedClassifier(model, 2, 0.25, noise="float32").certify(
        image, n0=23, n=103, seed=2, item_id="x", batch_size=10
    )
    assert made.claim.selection == counted(brightness, noisy_copies(image, 0.25, 2, "x", "selection", 23), 2)
    assert made.counts == counted(brightness, noisy_copies(image, 0.25, 2, "x", "estimation", 103), 2)
    assert seen[-14:] == [10, 10, 3, *[10] * 10, 3]
    progress = []
    SmoothedClassifier(model, 2, 0.25).certify(image, n0=23, n=103, batch_size=10, progress=progress.append)
    assert sum(progress) == 126


def test_recorded_counts_under_float32_noise_are_what_they_always_were():
    """Counts and radii recorded before the noise had laws: seeds, streams and bounds changed in no bit."""
    smoothed = SmoothedClassifier(brightness, 2, 0.25, noise="float32")
    for budget, counts, radius in (
        (300, (80, 220), 0.09504663192194154),
        ("grid@2000", (122, 358), 0.10250000000043903),
        ("betting:0.05@2000", (72, 184), 0.05000000000036534),
        ("looks:50,200,800/0,0.1", (185, 615), 0.14323272063707274),
        (Planned(absolute=0.05 * 0.25, n=2000), (198, 666), 0.14872849228571144),  # the rule of that time
    ):
        made = smoothed.certify(grey(0.55), budget=budget, n0=50, seed=2, item_id="x")
        assert (made.counts, made.radius) == (counts, radius)


@pytest.mark.parametrize("bound", ["one-sided", "two-sided", "best"])
def test_a_fixed_number_is_the_published_procedure(bound):
    smoothed = SmoothedClassifier(brightness, 2, 0.25, noise="float32")
    short = smoothed.certify(grey(0.55), n=400, n0=50, bound=bound)
    assert short == smoothed.certify(grey(0.55), budget=400, n0=50, bound=bound)
    proved = class_bound(np.array(short.counts), short.prediction, 1e-3, 0.25, bound)
    assert (short.p_lower, short.q_upper, short.radius) == (proved.p_lower, proved.q_upper, proved.radius)
    assert (short.budget, len(short.samples.looks), short.stop.kind) == ("fixed:400", 1, "cap reached")
    assert "budget" not in short.statement()


def test_without_any_number_the_published_radii_are_answered():
    made = SmoothedClassifier(brightness, 2, 0.25).certify(grey(0.65))
    assert as_budget(made.budget) == Grid() == as_budget()
    assert made.n < 5_000 and made.radius > 0.5
    assert f"{made.n} under budget grid@10000 (answered" in made.statement()
    assert f"n={made.n} of grid@10000" in repr(made)
    assert "grid@10000" in made._repr_html_()


def test_the_input_that_was_certified_is_recorded():
    smoothed, image = SmoothedClassifier(brightness, 2, 0.25, model_id="ab"), grey(0.6)
    made = smoothed.certify(image, n=20, item_id="a", intensity="8 bit, divided by 255")
    about = made.provenance
    assert about.pixels == smoothed.certify(image, n=20).item.removeprefix("sha256:")
    assert about.pixels != smoothed.certify(grey(0.61), n=20, item_id="a").provenance.pixels
    assert (about.model, about.device, about.dtype, about.decoders) == ("ab", "cpu", "float32", {})
    assert about.intensity == "8 bit, divided by 255"
    assert {"certimed", "torch", "numpy", "scipy", "python"} <= about.versions.keys()


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


@pytest.mark.parametrize(
    "arguments", [{"budget": "betting:9"}, {"budget": "betting:0.1", "bound": "best"}, {"bound": "three-sided"}]
)
def test_settings_that_could_only_fail_are_refused_before_sampling(arguments):
    def never(x):
        raise AssertionError("the model was called")

    with pytest.raises(InputError):
        SmoothedClassifier(never, 2, 0.5).certify(grey(0.5), **arguments)


@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf, "0.5"])
def test_impossible_sigma_is_refused(sigma):
    with pytest.raises(InputError, match="sigma"):
        SmoothedClassifier(lambda x: torch.zeros(len(x), 2), 2, sigma)


def test_default_batch_is_bounded_in_bytes():
    assert default_batch_size((3, 224, 224)) * 3 * 224 * 224 * 4 <= 8 * 2**20
    assert default_batch_size((3, 224, 224), "cuda") > default_batch_size((3, 224, 224))
    assert default_batch_size((1, 1, 3)) == 1024
    assert default_batch_size((3, 5000, 5000)) == 1


def test_predict_pays_for_noise_that_is_off():
    """Its p-value holds for n samples of the exact law; n times the variation is added."""

    class Off:
        """The float32 law, said to be off by 0.0005 at this size."""

        sigma, name, norm = 0.25, "off", "L2"

        def __init__(self):
            from certimed.noise import as_law

            self._inner = as_law("float32", 0.25)

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def variation(self, values):
            assert values == 16
            return 0.0005

    exact = SmoothedClassifier(brightness, 2, 0.25, noise="float32").predict(grey(0.55), n=100, item_id="x")
    charged = SmoothedClassifier(brightness, 2, 0.25, noise=Off()).predict(grey(0.55), n=100, item_id="x")
    assert charged.counts == exact.counts
    assert exact.p_value == float(predict_p_value(max(exact.counts), min(exact.counts)))
    assert exact.p_value + 0.05 <= charged.p_value <= exact.p_value + 0.05 + 1e-12


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "guess", "pixels:50,100"])
def test_budgets_that_are_none_are_refused(budget):
    with pytest.raises(InputError):
        SmoothedClassifier(brightness, 2, 0.25).certify(grey(0.9), budget=budget)


@pytest.mark.parametrize("budget", ["grid", 5_000, Grid()])
def test_two_numbers_are_refused(budget):
    with pytest.raises(InputError, match="both say how many"):
        SmoothedClassifier(brightness, 2, 0.25).certify(grey(0.9), budget=budget, n=100)
