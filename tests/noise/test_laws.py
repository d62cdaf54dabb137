"""The grid law holds in floating point: exact table, exact sums, and no low bit that knows the image."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from scipy import stats

from certimed.classification import SmoothedClassifier
from certimed.engine import noisy_batches as in_batches
from certimed.errors import InputError
from certimed.noise import CHUNK, Float32Gaussian, GridGaussian, NoiseKey, NoiseStream, law_from_dict, named_law
from certimed.noise.rounded import REACH, RoundedGaussian, rounded_gaussian
from certimed.statistics import clopper_pearson_lower, lower_less, one_sided_bound


def noisy_batches(image, law, key, n, start=0):
    return in_batches(image, law, key, n, batch_size=1024, start=start)


KEY = NoiseKey(7, "axial/slice-1.png", "estimation")
LAW = GridGaussian(0.25)
GOLDEN = [3696, -15853, 2159, -1118, 31415, 5286, -10296, -8173, -21666, 9228, 32512, 7915]
UNIT = 2**92  # every probability of the sampler is a whole number of these


def exact_law(sigma: float, levels: int, half: int) -> list[mpf]:
    """P(round(sigma g levels) = n) for 0 <= n <= half, to 50 digits."""
    mp.dps = 50
    scale = mpf(sigma) * levels * mp.sqrt(2)
    upper = [mp.erfc((n - mpf(1) / 2) / scale) / 2 for n in range(half + 2)]
    return [upper[n] - upper[n + 1] for n in range(half + 1)]


def slots_of_cells(law: RoundedGaussian, layer) -> np.ndarray:
    return np.bincount((layer.first[: layer.owned] + law.half) // layer.width, minlength=2 * law.half // layer.width)


def drawn_law(law: RoundedGaussian) -> np.ndarray:
    """The probabilities of -half .. half - 1 under the sampler, as integers over 2^92."""
    counts, missing = np.zeros(2 * law.half, object), 1
    for layer, unit in zip(law.layers, (2**77, 2**62)):
        cells = np.bincount(
            (layer.first[: layer.owned] + law.half) // layer.width, minlength=2 * law.half // layer.width
        )
        assert (layer.first[: layer.owned] % layer.width == 0).all()
        counts += np.repeat(cells.astype(object) * missing * (unit // layer.width), layer.width)
        missing *= 2**15 - layer.owned
    counts += np.diff(law.ends.astype(object), prepend=0) * missing
    assert counts.sum() == UNIT
    assert min(counts) >= 0
    return counts


def distance(law: RoundedGaussian, sigma: float, levels: int) -> mpf:
    """Total variation distance between the drawn and the exact law, tails included."""
    exact, drawn = exact_law(sigma, levels, law.half), drawn_law(law)
    inside = sum(abs(mpf(int(drawn[n + law.half])) / UNIT - exact[abs(n)]) for n in range(-law.half, law.half))
    outside = 1 - 2 * mp.fsum(exact[1 : law.half]) - exact[0] - exact[law.half]
    return (inside + outside) / 2


CASES = [(0.5, 255), (0.001, 65535), (0.02, 65535), (0.1, 16320), pytest.param(0.25, 65535, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("sigma", "levels"), CASES)
def test_the_distance_from_the_exact_law_is_what_is_charged(sigma, levels):
    law = rounded_gaussian(sigma, levels)
    assert law.half >= REACH * sigma * levels
    assert 0 < distance(law, sigma, levels) < law.variation < 2e-14


def test_one_slot_in_the_wrong_cell_is_more_than_is_charged():
    law = rounded_gaussian(0.5, 255)
    fine = law.layers[1]
    first = fine.first.copy()
    first[0] += fine.width
    wrong = RoundedGaussian(
        law.half, (law.layers[0], type(fine)(fine.width, fine.owned, first)), law.ends, law.variation
    )
    assert distance(wrong, 0.5, 255) > law.variation


class Words:
    """A bit generator that says what it is told."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def random_raw(self, size):
        answer = self.answers.pop(0) if self.answers else np.zeros(size, np.uint64)
        assert len(answer) == size
        return answer


def test_what_is_drawn_is_what_the_table_says():
    law = rounded_gaussian(0.01, 65535)
    for depth, layer in enumerate(law.layers):
        slots, low = np.meshgrid(np.arange(2**15), np.arange(layer.width), indexing="ij")
        words = ((slots << 17) | low).astype(np.uint32).ravel()  # all bits that are looked at, once each
        out, missed = np.empty(words.size, np.int32), words >> 17 >= layer.owned
        law._draw(Words(words.view(np.uint64)), out, depth)
        got = np.bincount(out[~missed] + law.half, minlength=2 * law.half)
        slots_of = np.bincount(
            (layer.first[: layer.owned] + law.half) // layer.width, minlength=len(got) // layer.width
        )
        assert np.array_equal(got, np.repeat(slots_of, layer.width))
    weights = np.diff(law.ends, prepend=0)
    some = np.flatnonzero(weights)
    out = np.empty(2 * some.size, np.int32)
    edges = np.concatenate([law.ends[some] - weights[some], law.ends[some] - 1])  # first and last number of each value
    law._draw(Words(edges.astype(np.uint64) << np.uint64(2)), out, 2)
    assert np.array_equal(out, np.tile(some - law.half, 2))


def cpu_values(law: GridGaussian, size: int) -> np.ndarray:
    return NoiseStream(KEY, (size,), law=law).draw(1).double().numpy().ravel()


def device_values(law: GridGaussian, size: int) -> np.ndarray:
    """As drawn on a GPU, by a CPU generator."""
    tables = rounded_gaussian(law.sigma, law.levels).on(torch.device("cpu"))
    piece = torch.empty(1, size)
    tables.draw(torch.Generator().manual_seed(3), piece)
    return piece.double().numpy().ravel()


@pytest.mark.parametrize("draw", [cpu_values, device_values])
@pytest.mark.parametrize("law", [LAW, GridGaussian(1.0), GridGaussian(0.01), GridGaussian(0.5, 1)])
def test_draws_follow_the_law(draw, law):
    values = draw(law, 1_000_001)
    assert np.array_equal(values, np.rint(values))
    spread = law.sigma * law.levels
    edges = np.rint(stats.norm.ppf(np.linspace(0, 1, 101)[1:-1]) * spread) + 0.5
    expected = np.diff(stats.norm.cdf(np.concatenate([[-np.inf], edges, [np.inf]]) / spread)) * values.size
    observed = np.bincount(np.searchsorted(edges, values), minlength=100)
    assert stats.chisquare(observed, expected).pvalue > 1e-4
    tails = [(np.abs(values) > z * spread).sum() for z in (3, 4)]
    assert np.allclose(tails, [2699.8, 63.3], atol=5 * np.sqrt([2699.8, 63.3]) + 20)
    if spread > 1000:
        low = np.bincount(values.astype(np.int64) & 63, minlength=64)
        assert stats.chisquare(low).pvalue > 1e-4
    neighbours = np.mean(values[:-1] * values[1:]) / spread**2
    assert abs(neighbours) < 5 / math.sqrt(values.size)


def test_words_of_a_device_serve_the_sampler_as_they_serve_the_cpu():
    law = rounded_gaussian(0.25, 65535)
    words = torch.empty((1, 2, 5000), dtype=torch.int64).random_(generator=torch.Generator().manual_seed(9))
    first, second = words[0].numpy()
    coarse = (first & 0xFFFFFFFF).astype(np.uint32)
    expected = np.empty(5000, np.int32)
    missed = coarse >> 17 >= law.layers[0].owned
    bits = first[missed] >> 32  # 31 of them: the highest 15 are the slot
    fine = ((bits >> 16 << 17) | (bits & (law.layers[1].width - 1))).astype(np.uint32)
    deep = fine >> 17 >= law.layers[1].owned
    last = (second[missed][deep] >> 1).astype(np.uint64) << np.uint64(2)
    padded = np.concatenate([fine, np.zeros(fine.size % 2, np.uint32)]).view(np.uint64)
    law._draw(Words(coarse.view(np.uint64), padded, last), expected, 0)
    piece = torch.empty(1, 5000)
    law.on(torch.device("cpu")).draw(torch.Generator().manual_seed(9), piece)
    assert missed.sum() > 30
    assert deep.sum() > 2
    assert np.array_equal(piece.numpy().ravel(), expected)


def test_a_device_draws_each_sample_alone():
    tables = rounded_gaussian(0.25, 65535).on(torch.device("cpu"))
    together, apart = torch.empty(5, 3, 7), torch.empty(5, 3, 7)
    tables.draw(torch.Generator().manual_seed(1), together)
    generator = torch.Generator().manual_seed(1)
    for piece in (apart[:2], apart[2:]):
        tables.draw(generator, piece)
    assert torch.equal(together, apart)


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.integers(1, 70), min_size=1, max_size=5), start=st.integers(0, 2 * CHUNK))
def test_batches_and_starts_leave_no_trace(pieces, start):
    image = torch.linspace(0, 1, 15).view(1, 3, 5)
    whole = torch.cat(list(noisy_batches(image, LAW, KEY, start + sum(pieces))))
    begin = start
    for count in pieces:
        (batch,) = noisy_batches(image, LAW, KEY, count, start=begin)
        assert torch.equal(batch, whole[begin : begin + count])
        begin += count


def test_threads_do_not_change_noise():
    before, drawn = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                drawn.append(NoiseStream(KEY, (3, 101, 97), law=LAW).draw(100))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*drawn)


def test_every_part_of_the_key_matters_to_all_256_bits():
    keys = [
        NoiseKey(seed, item, phase)
        for seed, item, phase in itertools.product((0, 1), ("a", "b"), ("selection", "estimation"))
    ]
    bits = [key.entropy(chunk) for key in keys for chunk in range(500)]
    assert len({value & (2**64 - 1) for value in bits}) == len(bits)
    assert max(bits).bit_length() == 256


def test_the_stream_of_a_key_is_the_same_wherever_and_whenever_it_is_drawn():
    values = NoiseStream(KEY, (1, 2, 3), law=LAW, start=31).draw(2).int().flatten().tolist()
    assert values == GOLDEN


def test_streams_start_at_one_count_which_is_why_they_never_meet():
    # The proof in certimed.noise.keys rests on it: equal counters at equal positions.
    starts = [np.random.SFC64(np.random.SeedSequence(e, pool_size=8)).state["state"]["state"] for e in (1, 2**255)]
    assert starts[0][3] == starts[1][3]
    assert set(starts[0][:3].tolist()).isdisjoint(starts[1][:3].tolist())


def test_the_float32_law_is_what_it_was_bit_for_bit():
    image = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0))
    (batch,) = noisy_batches(image, Float32Gaussian(0.3), KEY, 40)
    for index in (0, 1, 31, 32, 39):
        generator = torch.Generator().manual_seed(KEY.chunk_seed(index // CHUNK))
        for _ in range(index % CHUNK + 1):
            normal = torch.empty(3, 5, 4).normal_(generator=generator)
        assert torch.equal(batch[index], normal * 0.3 + image)


def noise_values(law: GridGaussian) -> np.ndarray:
    half = rounded_gaussian(law.sigma, law.levels).half
    some = np.random.Generator(np.random.SFC64(1)).integers(-half, half, 40)
    return np.concatenate([[-half, -half + 1, -257, -1, 0, 1, 257, half - 1], some])


@pytest.mark.parametrize(
    ("law", "depth"),
    [
        *itertools.product([LAW, GridGaussian(0.001), GridGaussian(8.0)], [255, 65535]),
        (GridGaussian(0.5, 64), 255),
    ],
)
def test_sums_are_exact_and_the_model_sees_a_function_of_them(law, depth):
    image = (torch.arange(depth + 1) / depth).view(1, -1)
    origin = law.origin(image)
    exact = np.arange(depth + 1, dtype=np.int64) * (law.levels // depth)
    assert np.array_equal(origin.numpy().ravel(), exact)
    assert torch.equal(law.clean(origin), image)
    assert law.placement(image).on_grid
    values = noise_values(law)
    noise = torch.from_numpy(np.repeat(values.astype(np.float32)[:, None, None], depth + 1, axis=2))
    sums = exact[None] + values[:, None]
    assert np.abs(sums).max() < 2**24
    seen = law.noisy(origin, noise)
    assert seen.data_ptr() == noise.data_ptr()
    assert np.array_equal(seen[:, 0].numpy(), sums.astype(np.float32) / np.float32(law.levels))
    assert np.array_equal(np.rint(seen[:, 0].double().numpy() * law.levels), sums)


def test_the_image_only_shifts_what_the_model_sees():
    """f(x + G N) for two images is one sample of integers, moved: the identity the theorem rests on."""
    here, there = (torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    seen = [next(noisy_batches(x / 255, LAW, KEY, 50)).double().mul(LAW.levels).round() for x in (here, there)]
    assert torch.equal(seen[1] - seen[0], ((there - here) * 257).double().expand(50, 1, 40))


@pytest.mark.parametrize("law", [LAW, Float32Gaussian(0.25)])
def test_nothing_is_a_view_of_the_image(law):
    image = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    kept = image.clone()
    origin = law.origin(image)
    law.clean(origin).zero_()
    batches = [batch.zero_() for batch in noisy_batches(image, law, KEY, 3)]
    origin.zero_()
    assert torch.equal(image, kept)
    assert len(batches) == 1


class LowBits(torch.nn.Module):
    """Answers 1 where all small values are multiples of 2^-29: below 2^-6, float32 holds much finer ones.

    In float32 a value that small is a small sigma * g if the image is 0 there, with all its bits; if the image is 1/32,
    it is the difference of two numbers of which neither has bits below 2^-29.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = x.double().flatten(1) * 2.0**29
        attacked = ((scaled == scaled.round()) | (x.flatten(1).abs() >= 2.0**-6)).all(dim=1).double()
        return torch.stack([1 - attacked, attacked], dim=1)


def radius_and_answer(law, n: int) -> tuple[float, int]:
    """The radius certified at 0, and the answer on an image .70 away, both with 10 000 samples."""
    image = torch.zeros(1, 16, 32)
    attacked = torch.full_like(image, law.origin(torch.full((1, 1), 1 / 32)).item() / (law.levels or 1))
    assert float((attacked - image).norm()) < 0.71
    counts = [
        sum(np.bincount(LowBits()(batch).argmax(1), minlength=2) for batch in noisy_batches(x, law, KEY, n))
        for x in (image, attacked)
    ]
    top = int(counts[0].argmax())
    p = lower_less(clopper_pearson_lower(counts[0][top], n, 0.001), law.variation(image.numel()))
    return float(law.radius(p)), int(counts[1].argmax()) == top


def test_low_bits_break_the_certificate_in_float32_and_not_on_the_grid():
    radius, agrees = radius_and_answer(Float32Gaussian(0.25), 10_000)
    assert radius > 0.79
    assert not agrees  # a false certificate: the answer is another one at a distance of .71
    radius, agrees = radius_and_answer(GridGaussian(0.25), 10_000)
    assert radius > 0.79
    assert agrees


def test_linear_oracle_on_the_grid():
    weights = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(3))
    law, alpha, n = GridGaussian(0.25), 0.05, 200
    on_grid = law.clean(law.origin(image))
    margin = 0.3  # the true radius, up to the grid's own size
    shift = margin * float(weights.norm()) - float((weights * on_grid).sum())

    def model(batch: torch.Tensor) -> torch.Tensor:
        score = (batch * weights).flatten(1).sum(1) + shift
        return torch.stack([score, -score], dim=1)

    wrong, runs = 0, 300
    for item in range(runs):
        counts = sum(
            np.bincount(model(b).argmax(1), minlength=2)
            for b in noisy_batches(image, law, NoiseKey(0, str(item), "estimation"), n)
        )
        wrong += law.radius(one_sided_bound(counts, 0, n, alpha, law.sigma).p_lower) > margin + 1e-4
    assert wrong <= stats.binom.ppf(1 - 1e-6, runs, alpha)
    assert wrong > 0  # the bound is used up, so the draws are not too calm either


def flat(tensor: torch.Tensor) -> list[float]:
    return tensor.double().flatten().tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 5, 64, 257]))
def test_the_real_radius_covers_every_real_perturbation(seed, k):
    law, generator = GridGaussian(1.0, k), torch.Generator().manual_seed(seed)
    image = torch.rand(2, 6, generator=generator)
    place, radius = law.placement(image), 0.5
    assert place.slack >= math.sqrt(12) / (2 * law.levels)
    off = [Fraction(v) - Fraction(int(m), law.levels) for v, m in zip(flat(image), flat(law.origin(image)))]
    squares = sum(part**2 for part in off)
    assert squares <= Fraction(place.rounding) ** 2 <= squares * (1 + Fraction(1, 10**12))
    # The worst direction: away from the grid point, to where the next rounding goes the same way.
    move = torch.sign(image.double() * law.levels - law.origin(image).double())
    for direction in (move, torch.randn(2, 6, generator=generator).double()):
        change = direction / direction.norm() * place.real_radius(radius) * (1 - 1e-9)
        reached = ((image.double() + change) * law.levels).round() / law.levels
        assert (reached - law.origin(image).double() / law.levels).norm() < radius


def test_variation_at_the_size_of_the_bars():
    for sigma in (0.1, 0.25, 0.5, 1.0):
        assert 0 < GridGaussian(sigma).variation(3 * 224 * 224) < 2e-9
    assert Float32Gaussian(0.5).variation(10**6) == 0
    assert LAW.placement(torch.rand(3, 224, 224)).slack < 0.003


@pytest.mark.parametrize("law", [LAW, GridGaussian(0.1, 64), Float32Gaussian(1 / 3)])
def test_laws_survive_json(law):
    assert law_from_dict(json.loads(json.dumps(law.to_dict()))) == law


def test_radius_and_probability_are_inverses_rounded_outwards():
    for radius in (0.0, 0.1, 0.75, 1.5):
        p = LAW.probability(radius)
        assert float(LAW.radius(np.nextafter(p, 1))) >= radius * (1 - 1e-9)
        assert p >= stats.norm.cdf(radius / 0.25)
    assert float(LAW.radius(0.9, 0.1)) == pytest.approx(float(LAW.radius(0.9)), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GridGaussian(0.0), "sigma=0.0"),
        (lambda: GridGaussian(True), "sigma=True"),
        (lambda: Float32Gaussian(math.nan), "sigma=nan"),
        (lambda: Float32Gaussian("1"), "sigma='1'"),
        (lambda: GridGaussian(1e-4), "6.554 steps"),
        (lambda: GridGaussian(40.0), "choose sigma between 0.00098 and 8"),
        (lambda: GridGaussian(0.5, 0), "k=0"),
        (lambda: GridGaussian(0.5, 2.0), "k=2.0"),
        (lambda: GridGaussian(0.001, 65794), "k=65794"),
        (lambda: named_law("uniform", 0.5), "use one of grid, float32"),
        (lambda: law_from_dict({"name": "gaussian-grid", "sigma": 0.5}), "is no noise law"),
        (lambda: law_from_dict({"name": "gaussian-float32", "sigma": 0.5, "k": 1}), "is no noise law"),
        (lambda: LAW.origin(torch.full((1, 2), 300.0)), "are not exact"),
        (lambda: LAW.origin(torch.tensor([[math.nan]])), "not finite"),
        (lambda: LAW.origin(torch.tensor([[math.inf]])), "not finite"),
    ],
)
def test_what_a_law_refuses(make, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        make()


def test_counting_under_a_law_of_the_command_line():
    assert named_law("grid", 0.25) == LAW
    assert named_law("float32", 0.25) == Float32Gaussian(0.25)
    for noise in ("grid", "float32"):
        smoothed = SmoothedClassifier(
            lambda b: torch.stack([b.mean((1, 2, 3)), 1 - b.mean((1, 2, 3))], 1), 2, 0.25, noise=noise
        )
        made = smoothed.certify(torch.full((1, 2, 2), 0.5), n0=400, n=400)
        assert made.law == named_law(noise, 0.25) and 120 < made.counts[0] < 280
