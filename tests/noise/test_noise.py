"""Noise is a pure function of its key, and no two chunks of one image share a generator seed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certimed.errors import InputError
from certimed.noise import CHUNK, PHASES, NoiseKey, NoiseStream, content_id

KEY = NoiseKey(7, "axial/slice-1.png", "estimation")


@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(st.integers(1, 70), min_size=1, max_size=6))
def test_split_into_pieces_leaves_no_trace(pieces):
    whole = NoiseStream(KEY, (2, 3, 5)).draw(sum(pieces))
    stream = NoiseStream(KEY, (2, 3, 5))
    assert torch.equal(torch.cat([stream.draw(count) for count in pieces]), whole)


@pytest.mark.parametrize("start", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_start_equals_skipping(start):
    whole = NoiseStream(KEY, (1, 4, 4)).draw(start + 9)
    assert torch.equal(NoiseStream(KEY, (1, 4, 4), start=start).draw(9), whole[start:])


def test_threads_do_not_change_noise():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = NoiseStream(KEY, (3, 64, 64)).draw(100)
        torch.set_num_threads(2)
        double = NoiseStream(KEY, (3, 64, 64)).draw(100)
        with torch.inference_mode():
            inside = NoiseStream(KEY, (3, 64, 64)).draw(100)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(single, double)
    assert torch.equal(single, inside)


def test_global_generator_is_untouched():
    before = torch.get_rng_state()
    NoiseStream(KEY, (3, 8, 8)).draw(50)
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_of_one_image_never_collide_in_the_bits_the_cpu_generator_uses():
    low = {
        NoiseKey(0, "image", phase).chunk_seed(chunk) & 0xFFFFFFFF
        for phase in PHASES
        for chunk in (*range(2000), (1 << 28) - 1)
    }
    assert len(low) == len(PHASES) * 2001


def test_the_cpu_generator_really_ignores_the_high_word():
    # The reason for the seed layout; if PyTorch ever changes this, the layout may be simplified.
    low, high = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5 + (3 << 32))
    assert torch.equal(torch.randn(20, generator=low), torch.randn(20, generator=high))


@pytest.mark.parametrize(
    "other",
    [
        NoiseKey(8, KEY.item, "estimation"),
        NoiseKey(7, "axial/slice-2.png", "estimation"),
        NoiseKey(7, KEY.item, "selection"),
    ],
)
def test_every_part_of_the_key_matters(other):
    mine, theirs = NoiseStream(KEY, (400,)).draw(40), NoiseStream(other, (400,)).draw(40)
    correlation = (mine * theirs).mean().item()
    assert abs(correlation) < 5 / math.sqrt(mine.numel())


def test_key_text_is_unambiguous():
    assert NoiseKey(1, '2", "x', "selection").chunk_seed(0) != NoiseKey(1, "2", "selection").chunk_seed(0)


def test_moments():
    sample = NoiseStream(KEY, (3, 32, 32)).draw(300).double()
    size = sample.numel()
    assert sample.dtype == torch.float64
    assert abs(sample.mean()) < 5 / math.sqrt(size)
    assert abs(sample.var() - 1) < 5 * math.sqrt(2 / size)
    assert abs((sample**4).mean() - 3) < 5 * math.sqrt(96 / size)
    neighbours = (sample[:-1] * sample[1:]).mean()
    assert abs(neighbours) < 5 / math.sqrt(size)


def test_unknown_phase_and_absurd_chunk_are_refused():
    with pytest.raises(InputError, match="phase='training'"):
        NoiseKey(0, "x", "training")
    with pytest.raises(InputError, match="outside"):
        KEY.chunk_seed(1 << 28)


def test_item_id_depends_on_content_and_shape():
    image = torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(0))
    assert content_id(image) == content_id(image.clone())
    assert content_id(image) != content_id(image.reshape(1, 6, 4))
    assert content_id(image) != content_id(image + 1e-6)
