"""Certified intervals of measurements: a closed form, what rides on one stream, and the demo."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from toys import Linear, bands, threshold

from certimed.assets import asset
from certimed.budgets import Fixed, Looks
from certimed.certificates import certificate_from_dict, load_certificate
from certimed.data import read_image
from certimed.denoising import Compose, load_denoiser
from certimed.engine import PLAIN, Engine, ModelStream, Scores
from certimed.errors import InputError, ModelError
from certimed.measurements import measurement, parse_measurement
from certimed.measuring import SmoothedMeasurement
from certimed.noise import as_law
from certimed.segmentation import SmoothedSegmenter
from certimed.segmenters import load_segmenter
from certimed.targets import Interval, Pixels

SHAPE = (1, 4, 4)
DIRECTION = Linear(SHAPE, 0.0).direction.numpy()


def along(image):
    """A linear functional of norm 1: under an attack of norm R its median moves by R at most, and by R at worst."""
    return float((image * DIRECTION).sum(dtype=np.float64))


def linear(sigma: float) -> SmoothedMeasurement:
    return SmoothedMeasurement(threshold, 2, sigma, [measurement(along)])


def test_a_linear_functional_is_never_outside_beyond_alpha():
    """The truth under attack is known: [f - R, f + R]. An interval that leaves a part of it out has failed."""
    sigma, radius, alpha, runs = 0.25, 0.2, 0.2, 200
    image = torch.full(SHAPE, 0.5)
    truth, smoothed, wrong = along(image.numpy()), linear(sigma), 0
    for seed in range(runs):
        found = smoothed.certify(image, radius, n=60, alpha=alpha, seed=seed, item_id="x").intervals["along"]
        wrong += found.lower[0] > truth - radius or found.upper[0] < truth + radius
    assert wrong <= stats.binom.ppf(0.9999, runs, alpha)
    assert wrong > 0  # an interval that never fails at alpha = 0.2 would be far too wide


@pytest.mark.slow
def test_ten_thousand_samples_come_within_a_tenth_of_the_ideal_width():
    image = torch.full(SHAPE, 0.5)
    certificate = linear(0.25).certify(image, (0.2, 0.4), n=10_000, alpha=1e-3)
    found, truth = certificate.intervals["along"], along(image.numpy())
    for index, radius in enumerate(certificate.radii):
        assert 2 * radius <= found.upper[index] - found.lower[index] <= 1.1 * 2 * radius
        assert found.lower[index] <= truth - radius and found.upper[index] >= truth + radius


def test_attacked_medians_stay_in_their_intervals():
    """Deployed medians at the worst attack, by fresh samples, against what was certified at the clean image."""
    radius, image = 0.2, torch.full(SHAPE, 0.5)
    smoothed = linear(0.25)
    found = smoothed.certify(image, radius, n=400).intervals["along"]
    for sign in (-1, 1):
        attacked = image + sign * radius * torch.from_numpy(DIRECTION)
        median = smoothed.predict(attacked, n=2_000, item_id="attacked")["along"]
        assert found.lower[0] <= median.lower <= median.value <= median.upper <= found.upper[0]


def test_several_targets_see_the_same_scores():
    """Masks and measurements of one run are those of two runs: the noise is the same, and each has its own alpha."""
    image = torch.rand(1, 12, 9, generator=torch.Generator().manual_seed(1))
    law = as_law("grid", 0.12)
    engine = Engine({PLAIN: ModelStream(bands)}, [Scores(PLAIN)], law, space="model input", device=torch.device("cpu"))
    measured = Interval(3, (parse_measurement("area:1", "abc"), parse_measurement("intensity:2", "abc")), (0.05,))
    calls = []
    both = engine.run(
        image, [Pixels(3), measured], Fixed(100), n0=10, seed=3, item_id="a", clean=False, progress=calls.append
    )[PLAIN]
    assert sum(calls) == 110
    mask, interval = both.certificates
    assert mask == SmoothedSegmenter(bands, 3, 0.12).certify(image, seed=3, item_id="a")
    names = [one.name for one in measured.measurements]
    alone = SmoothedMeasurement(bands, 3, 0.12, names).certify(image, 0.05, seed=3, item_id="a", batch_size=7)
    assert interval.claim == alone.claim and interval.samples == alone.samples
    assert (interval.label, mask.label) == ("plain, measured", "plain")


def test_areas_are_those_of_the_masks_on_the_same_copies():
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    smoothed = SmoothedMeasurement(threshold, 2, 0.2, ["area:1"])
    found = smoothed.certify(image, 0.1, n=100, seed=1, item_id="a").intervals["area:1"]
    agreement = SmoothedSegmenter(threshold, 2, 0.2).certify(image, n=100, seed=1, item_id="a")
    ones = np.where(agreement.mask == 1, agreement.agreement, 100 - agreement.agreement.astype(int))
    assert sum(found.values) == ones.sum()


def test_a_certificate_survives_its_json(tmp_path):
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    smoothed = SmoothedMeasurement(threshold, 2, 0.2, ["area:1", "diameter:1"], spacing=(0.5, 0.5))
    made = smoothed.certify(image, (0.1, 0.2), thresholds={"area:1": 0.1})
    assert certificate_from_dict(json.loads(made.to_json())) == made
    made.save(tmp_path / "one")
    assert load_certificate(tmp_path / "one") == made
    data = json.loads(made.to_json())
    data["claim"]["intervals"][0]["upper"][0] -= 1e-6
    with pytest.raises(InputError, match="must be values of samples"):
        certificate_from_dict(data)


def test_any_radius_may_be_read_off_afterwards():
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    made = SmoothedMeasurement(threshold, 2, 0.2, ["area:1"]).certify(image, 0.1, n=400)
    own = made.intervals["area:1"]
    ends = [made.interval("area:1", radius) for radius in (0.0, 0.05, 0.1, 0.2, 0.3)]
    lows, highs = zip(*ends)
    assert list(lows) == sorted(lows, reverse=True) and list(highs) == sorted(highs)
    assert lows[2] <= own.lower[0] and highs[2] >= own.upper[0]
    assert lows[0] <= own.median <= highs[0]
    assert made.interval("area:1", 10.0) == (-math.inf, math.inf)
    with pytest.raises(InputError, match="no measurement"):
        made.interval("area:7", 0.1)


def test_undefined_values_widen_and_are_told():
    image = torch.full((1, 2, 2), 0.42)
    made = SmoothedMeasurement(threshold, 2, 0.1, ["diameter:1"]).certify(image, 0.02, n=100)
    own = made.intervals["diameter:1"]
    assert own.undefined > 20 and own.lower == (-math.inf,) and own.upper == (math.inf,)
    assert made.abstained and made.radius == 0
    assert f"{own.undefined} of 100 not defined" in made.statement()
    some = SmoothedMeasurement(threshold, 2, 0.1, ["diameter:1"]).certify(torch.full((1, 2, 2), 0.5), 0.02, n=100)
    assert 0 < some.intervals["diameter:1"].undefined < 12 and "not defined on" in some.statement()


def test_the_statement_names_the_interval_the_threshold_and_the_median():
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    smoothed = SmoothedMeasurement(threshold, 2, 0.2, ["area:1"], spacing=(10.0, 10.0))
    made = smoothed.certify(image, 0.1, thresholds={"area:1": 1000.0})
    own = made.intervals["area:1"]
    said = made.statement()
    assert f"{own.lower[0]:g} to {own.upper[0]:g} cm2 below 0.1" in said and "proved below 1000" in said
    assert "deploy that median" in said and "at most 0.001" in said and "pixels" not in said
    unknown = SmoothedMeasurement(threshold, 2, 0.2, ["area:1"]).certify(image, 0.1)
    assert "sizes are in pixels" in unknown.statement()


def test_a_budget_stops_when_the_threshold_is_decided():
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    smoothed = SmoothedMeasurement(threshold, 2, 0.2, ["area:1"])
    made = smoothed.certify(image, 0.1, budget=Looks((100, 200, 400)), thresholds={"area:1": 60})
    assert (made.n, made.stop.kind) == (100, "answered") and made.intervals["area:1"].place(0) == "below"
    assert made.level == pytest.approx(0.001 / 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 20}, "use n >= "),
        ({"radii": (0.2, 0.1)}, "must be above 0 and rise"),
        ({"radii": 0.0}, "must be above 0 and rise"),
        ({"alpha": 0.0}, "alpha"),
        ({"budget": "grid"}, "does not serve measurements"),
        ({"thresholds": {"ctr": 0.5}}, "not measured"),
        ({"measurements": ["area:1", "area:1"]}, "each once"),
        ({"measurements": ["dice:1"]}, "the image has none"),
        ({"measurements": ["volume:1"]}, "3 spatial axes"),
        ({"spacing": (1.0, 1.0, 1.0)}, "must hold 2 lengths"),
    ],
)
def test_impossible_settings_are_refused_before_sampling(settings, message):
    def never(x):
        raise AssertionError("the model was called")

    radii, measured = settings.pop("radii", 0.1), settings.pop("measurements", ["area:1"])
    spacing = settings.pop("spacing", None)
    with pytest.raises(InputError, match=message):
        SmoothedMeasurement(never, 2, 0.2, measured, spacing=spacing).certify(torch.rand(1, 8, 8), radii, **settings)


def test_broken_models_and_measurements_are_named():
    image = torch.rand(1, 8, 8)
    with pytest.raises(ModelError, match="num_classes"):
        SmoothedMeasurement(threshold, 3, 0.1, ["area:1"]).certify(image, 0.1)
    with pytest.raises(ModelError, match="not finite"):
        SmoothedMeasurement(lambda x: threshold(x) * float("nan"), 2, 0.1, ["area:1"]).certify(image, 0.1)
    with pytest.raises(ModelError, match="broken failed on a noisy copy"):
        broken = measurement(lambda mask: mask.nothing, "broken")
        SmoothedMeasurement(threshold, 2, 0.1, [broken]).certify(image, 0.1)


def test_the_demo_interval_is_eight_times_narrower_than_the_pixelwise_one():
    """The same copies, alpha and radius: what certified pixels leave open of the area, and the interval."""
    sigma, tau = 0.25, 0.75
    image = torch.from_numpy(read_image(sorted((asset("demo_segmentation_images") / "images").iterdir())[0]).pixels)
    network = load_segmenter(str(asset("demo_unet")))
    model = Compose(load_denoiser(str(asset("demo_denoiser")), torch.device("cpu")).at(sigma).eval(), network).eval()
    law = as_law("grid", sigma)
    engine = Engine({PLAIN: ModelStream(model)}, [Scores(PLAIN)], law, space="model input", device=torch.device("cpu"))
    radius = float(stats.norm.ppf(tau)) * sigma
    measured = Interval(3, (parse_measurement("area:1", "abc"),), (radius,))
    mask, interval = engine.run(image, [Pixels(3, (tau,)), measured], Fixed(100), n0=10, clean=False)[
        PLAIN
    ].certificates
    sure = int((mask.certified & (mask.mask == 1)).sum())
    pixelwise = int((~mask.certified).sum())
    own = interval.intervals["area:1"]
    assert own.lower[0] <= own.median <= own.upper[0] and sure <= own.median <= sure + pixelwise
    assert 8 * (own.upper[0] - own.lower[0]) <= pixelwise
