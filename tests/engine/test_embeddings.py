"""The embedding cache: the same numbers with and without it, within its memory, and cleaned up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import CLASS_NAMES, TinyVLM, class_images, counted, noisy_copies

from certimed.engine import EmbeddingCache, ModelStream, embed_copies
from certimed.errors import InputError, ModelError
from certimed.noise import NoiseKey, NoiseStream, as_law
from certimed.prompts import PromptLearner
from certimed.vlm import PromptedClassifier

KEY = NoiseKey(0, "image", "estimation")
HALF, QUARTER = as_law("float32", 0.5), as_law("float32", 0.25)


def setting() -> tuple[TinyVLM, ModelStream, Tensor]:
    vlm = TinyVLM()
    return vlm, ModelStream(vlm), class_images(vlm, 1)[0][0]


def embedded(
    cache: EmbeddingCache, stream: ModelStream, image: Tensor, law, key: NoiseKey, n: int, **options
) -> Tensor:
    return cache.embeddings(stream, image, law, key, n, **({"batch_size": 64} | options))


@pytest.mark.parametrize("max_bytes", [1 << 20, 0])
@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_cached_and_uncached_counts_are_equal(max_bytes: int, batch_size: int) -> None:
    vlm, encoder, image = setting()
    model = PromptedClassifier(vlm, PromptLearner(vlm, CLASS_NAMES, 4).text_features())
    plain = counted(model, noisy_copies(image, 0.5, 0, "image", "estimation", 500), 3)
    with EmbeddingCache(max_bytes=max_bytes) as cache:
        for _ in range(2):  # computed, then read back
            counts = torch.zeros(3, dtype=torch.int64)
            for batch in cache.batches(encoder, image, HALF, KEY, 500, batch_size=batch_size):
                counts += torch.bincount(model.logits(batch).argmax(dim=1), minlength=3)
            assert tuple(counts.tolist()) == plain
        assert (cache.memory_bytes, cache.disk_bytes) == ((16_000, 0) if max_bytes else (0, 16_000))


def test_what_was_embedded_once_is_not_embedded_again_and_addresses_are_kept_apart() -> None:
    vlm, encoder, image = setting()
    cache = EmbeddingCache()
    first = embedded(cache, encoder, image, HALF, KEY, 100, batch_size=10)
    assert vlm.image_calls == 10
    assert torch.equal(embedded(cache, encoder, image, HALF, KEY, 100, batch_size=33), first)
    assert vlm.image_calls == 10
    for other in (
        embedded(cache, encoder, image, QUARTER, KEY, 100),
        embedded(cache, encoder, image + 0.1, HALF, KEY, 100),
        embedded(cache, encoder, image, HALF, NoiseKey(0, "image", "selection"), 100),
        embedded(cache, encoder, image, HALF, NoiseKey(1, "image", "estimation"), 100),
        embedded(cache, encoder, image, HALF, KEY, 100, start=32),
        embedded(cache, ModelStream(vlm, nn.Hardtanh(0, 1).eval()), image, HALF, KEY, 100),
    ):
        assert not torch.equal(other, first)
    assert len(cache) == 7
    cache.forget("image")
    assert len(cache) == 0 and cache.memory_bytes == 0


def test_an_abandoned_pass_leaves_no_half_filled_entry() -> None:
    _, encoder, image = setting()
    cache = EmbeddingCache()
    next(iter(cache.batches(encoder, image, HALF, KEY, 100, batch_size=10)))
    assert len(cache) == 0
    assert len(embedded(cache, encoder, image, HALF, KEY, 100, batch_size=10)) == 100


def test_memory_is_bounded_and_the_folder_disappears(tmp_path: Path) -> None:
    _, encoder, image = setting()
    cache = EmbeddingCache(max_bytes=5000, folder=tmp_path)
    expected = {}
    for item in "abcd":
        key = NoiseKey(0, item, "estimation")
        expected[item] = embedded(cache, encoder, image, HALF, key, 100)
    assert cache.memory_bytes == 3200 and cache.disk_bytes == 3 * 3200
    for item, value in expected.items():
        assert torch.equal(embedded(cache, encoder, image, HALF, NoiseKey(0, item, "estimation"), 100), value)
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 3
    cache.forget("b")
    assert len(list(folder.iterdir())) == 2
    cache.close()
    assert list(tmp_path.iterdir()) == []


def test_half_precision_rounds_the_same_whether_computed_or_read_back() -> None:
    _, encoder, image = setting()
    cache = EmbeddingCache(dtype=torch.float16, max_bytes=100)
    computed = embedded(cache, encoder, image, HALF, KEY, 100)
    read = embedded(cache, encoder, image, HALF, KEY, 100)
    exact = embedded(EmbeddingCache(), encoder, image, HALF, KEY, 100)
    assert torch.equal(computed, read) and computed.dtype == torch.float32
    assert cache.disk_bytes == 1600
    assert 0 < float((computed - exact).abs().max()) < 5e-3


def test_copies_at_mixed_noise_levels_use_the_streams_samples() -> None:
    vlm, encoder, image = setting()
    sigmas = torch.tensor([0.0, 0.5, 1.0, 0.25])
    noise = NoiseStream(KEY, tuple(image.shape)).draw(4)
    expected = vlm.encode_image(image + sigmas.view(-1, 1, 1, 1) * noise)
    torch.testing.assert_close(embed_copies(encoder, image, sigmas, KEY, batch_size=3), expected)


def test_a_denoiser_sees_the_same_noise_and_is_part_of_the_identity() -> None:
    vlm, encoder, image = setting()

    class Halve(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x

    denoised = ModelStream(vlm, Halve().eval())
    noisy = image + 0.5 * NoiseStream(KEY, tuple(image.shape)).draw(5)
    torch.testing.assert_close(embedded(EmbeddingCache(), denoised, image, HALF, KEY, 5), vlm.encode_image(0.5 * noisy))
    assert denoised.identity not in (encoder.identity, ModelStream(vlm, nn.Hardtanh().eval()).identity)
    with pytest.raises(ModelError, match="training mode"):
        ModelStream(vlm, Halve())


def test_impossible_settings_and_values_are_refused() -> None:
    with pytest.raises(InputError, match="bfloat16"):
        EmbeddingCache(dtype=torch.bfloat16)
    with pytest.raises(InputError, match="max_bytes"):
        EmbeddingCache(max_bytes=-1)
    vlm = TinyVLM(projection=torch.full((8, 16), 1e5))
    with pytest.raises(ModelError, match="not finite"):
        embedded(EmbeddingCache(dtype=torch.float16), ModelStream(vlm), torch.ones(1, 4, 4), HALF, KEY, 5)
