"""Every adapter against its source library's own forward, on tiny random models in the real file formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from vlm_families import FAMILIES, TEXTS, Family, Reference, write_medclip, write_transformers_clip

import certimed.vlm
from certimed.errors import InputError, ModelError
from certimed.vlm import PromptedClassifier, Tokens, VisionLanguageModel, ZeroShotClassifier, load

pytest.importorskip("transformers")
pytest.importorskip("open_clip")

Loaded = tuple[VisionLanguageModel, Reference, Family, Path]


@pytest.fixture(scope="module", params=list(FAMILIES))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """One model of each family, written and loaded once."""
    family = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    reference = family.write(folder)
    return load(f"{family.spec}{folder}"), reference, family, folder


def _tokens(vlm: VisionLanguageModel, texts: list[str], length: int | None = None) -> Tokens:
    tokens = vlm.tokens([vlm.content_ids(text) for text in texts])
    if length is None:
        return tokens
    extra = length - tokens.ids.shape[1]
    pad = torch.nn.functional.pad
    return Tokens(pad(tokens.ids, (0, extra), value=vlm.pad_id), pad(tokens.mask, (0, extra), value=False))


@torch.no_grad()
def test_image_features_equal_the_source_library(loaded: Loaded) -> None:
    vlm, reference, _, _ = loaded
    x = torch.rand(3, *vlm.input_shape, generator=torch.Generator().manual_seed(1)) * 3 - 1
    assert torch.allclose(vlm.encode_image(x), reference.images(x), atol=1e-5)


@torch.no_grad()
def test_text_features_equal_the_source_library(loaded: Loaded) -> None:
    vlm, reference, _, _ = loaded
    assert torch.allclose(vlm.encode_texts(TEXTS), reference.texts(TEXTS), atol=1e-5)


@torch.no_grad()
def test_embeddings_path_equals_token_path(loaded: Loaded) -> None:
    """The embeddings of single tokens, looked up one by one and put together, give the features of the whole text."""
    vlm, reference, _, _ = loaded
    for text, expected in zip(TEXTS, reference.texts(TEXTS)):
        content = vlm.content_ids(text)
        ids = [vlm.bos_id, *content, vlm.eos_id]
        embeddings = torch.stack([vlm.token_embeddings(torch.tensor(i)) for i in ids])[None]
        assert embeddings.shape == (1, len(ids), vlm.token_dim)
        assert torch.allclose(vlm.encode_text(embeddings, vlm.tokens([content]))[0], expected, atol=1e-5)


@torch.no_grad()
def test_text_features_do_not_depend_on_padding(loaded: Loaded) -> None:
    vlm, _, family, _ = loaded
    short = vlm.encode_texts(TEXTS)
    for length in (30, min(family.context, 77)):
        tokens = _tokens(vlm, TEXTS, length)
        assert torch.allclose(vlm.encode_text(vlm.token_embeddings(tokens.ids), tokens), short, atol=1e-5)
    alone = torch.cat([vlm.encode_texts([text]) for text in TEXTS])
    assert torch.allclose(alone, short, atol=1e-5)


def test_gradients_reach_the_embeddings_and_nothing_else(loaded: Loaded) -> None:
    vlm, _, family, _ = loaded
    before = {name: value.clone() for name, value in vlm.state_dict().items()}
    tokens = _tokens(vlm, TEXTS)
    embeddings = vlm.token_embeddings(tokens.ids).requires_grad_()
    vlm.encode_text(embeddings, tokens).square().sum().backward()
    assert embeddings.grad is not None
    places = torch.arange(tokens.mask.shape[1])
    content = tokens.mask & (places < tokens.last[:, None]) & (places >= int(not family.begins))
    assert (embeddings.grad[content].abs().sum(dim=-1) > 0).all()
    assert (embeddings.grad[~tokens.mask] == 0).all()
    assert all(p.grad is None and not p.requires_grad for p in vlm.parameters())
    assert all(torch.equal(value, before[name]) for name, value in vlm.state_dict().items())


def test_forward_mode_derivative_matches_finite_differences(loaded: Loaded) -> None:
    """The linearised text encoder of the per-sample method needs Jacobian-vector products."""
    vlm, _, _, _ = loaded
    tokens = _tokens(vlm, TEXTS)
    embeddings = vlm.token_embeddings(tokens.ids)
    direction = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(2)) * embeddings.std()

    def features(e: torch.Tensor) -> torch.Tensor:
        return vlm.encode_text(e, tokens)

    _, tangent = torch.func.jvp(features, (embeddings,), (direction,))
    numeric = (features(embeddings + 1e-2 * direction) - features(embeddings - 1e-2 * direction)) / 2e-2
    assert torch.allclose(tangent, numeric, atol=2e-2 * float(tangent.abs().max()))


def test_contract_of_every_adapter(loaded: Loaded) -> None:
    vlm, _, family, folder = loaded
    assert vlm.name == f"{family.spec}{folder}"
    assert vlm.input_shape == (family.channels, 32, 32)
    assert vlm.context_length == family.context
    assert vlm.embedding_dim == family.dim and vlm.encode_texts(["a"]).shape == (1, family.dim)
    assert len(vlm.identity) == 64
    assert not any(module.training for module in vlm.train().modules())
    ids = _tokens(vlm, ["melanoma"]).ids[0]
    assert ids[0] == vlm.bos_id and ids[-1] == vlm.eos_id
    assert vlm.logit_scale > 1


def test_identity_is_stable_and_follows_the_weights(loaded: Loaded, tmp_path: Path) -> None:
    vlm, _, family, folder = loaded
    assert load(f"{family.spec}{folder}").identity == vlm.identity
    assert load(str(folder)).identity == vlm.identity


def test_identity_changes_with_one_weight(tmp_path: Path) -> None:
    from transformers import CLIPModel

    write_transformers_clip(tmp_path)
    before = load(str(tmp_path)).identity
    model = CLIPModel.from_pretrained(tmp_path)
    with torch.no_grad():
        model.text_projection.weight[0, 0] += 1e-6
    model.save_pretrained(tmp_path)
    assert load(str(tmp_path)).identity != before


def test_loading_leaves_the_global_generator_alone(loaded: Loaded) -> None:
    _, _, family, folder = loaded
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load(f"{family.spec}{folder}")
    assert torch.equal(torch.get_rng_state(), before)


def test_wrong_image_size_is_named(loaded: Loaded) -> None:
    vlm, _, family, _ = loaded
    with pytest.raises(
        ModelError, match=rf"\(batch, {family.channels}, 32, 32\) but got \(2, {family.channels}, 31, 32\)"
    ):
        vlm.encode_image(torch.rand(2, family.channels, 31, 32))
    with pytest.raises(ModelError, match="got"):
        vlm.encode_image(torch.rand(family.channels, 32, 32))


def test_a_text_beyond_the_context_is_refused(loaded: Loaded) -> None:
    vlm, _, family, _ = loaded
    vlm.tokens([[5] * (family.context - 2)])
    with pytest.raises(InputError, match=f"{family.context + 1} tokens does not fit .* at most {family.context}"):
        vlm.tokens([[5] * (family.context - 1)])
    with pytest.raises(InputError, match="no text"):
        vlm.tokens([])


def test_zero_shot_classifier_runs_on_every_family(loaded: Loaded) -> None:
    vlm, reference, family, _ = loaded
    classifier = ZeroShotClassifier(vlm, ["melanoma", "lung opacity"], ["a photo of {}", "an image of {}."])
    x = torch.rand(2, *vlm.input_shape)
    with torch.no_grad():
        texts = [
            f"{a}{name}{b}"
            for name in ("melanoma", "lung opacity")
            for a, b in (("a photo of ", ""), ("an image of ", "."))
        ]
        text = torch.nn.functional.normalize(reference.texts(texts), dim=-1).view(2, 2, -1).mean(dim=1)
        cosine = torch.nn.functional.cosine_similarity(reference.images(x)[:, None], text[None], dim=-1)
        assert torch.allclose(classifier(x), vlm.logit_scale * cosine, atol=2e-4)
        assert torch.allclose(classifier.logits(vlm.encode_image(x)), classifier(x))
    assert classifier.text_features.shape == (2, family.dim)
    same = PromptedClassifier(vlm, 7 * classifier.text_features)
    assert torch.allclose(same(x), classifier(x), atol=1e-5)


@pytest.mark.parametrize("size", [(48, 48), (61, 97), (150, 64), (32, 32), (20, 27)])
def test_preprocessing_is_close_to_the_library_s_own(loaded: Loaded, size: tuple[int, int]) -> None:
    """The library resizes 8-bit images, so it rounds to 1/255 and clips: the difference is that and no more.

    The image is smooth and away from 0 and 1, so that bicubic overshoot does not add the effect of clipping, except at
    MedCLIP's black border. Pillow rounds after each of its two passes, and once more for grey.
    """
    vlm, reference, family, _ = loaded
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(3)) * 0.7 + 0.15
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)[0].clamp(0, 1)
    eight_bit = (smooth * 255).round().to(torch.uint8)
    theirs = reference.pil(Image.fromarray(np.ascontiguousarray(eight_bit.permute(1, 2, 0).numpy())))
    ours = vlm.preprocess(eight_bit.float() / 255)
    difference = (ours - theirs).abs()
    assert ours.shape == theirs.shape == vlm.input_shape
    assert float(difference.max()) <= (3.0 if family.channels == 1 else 1.5) / 255
    assert float(difference.mean()) <= 0.6 / 255


def test_medclip_with_a_resnet(tmp_path: Path) -> None:
    reference = write_medclip(tmp_path, resnet=True)
    vlm = load(f"medclip:{tmp_path}")
    assert vlm.input_shape == (1, 224, 224)
    x = torch.rand(1, 1, 224, 224)
    with torch.no_grad():
        expected = reference.images(x)
        assert torch.allclose(vlm.encode_image(x), expected, atol=1e-5 * max(1.0, float(expected.abs().max())))


def test_medclip_logit_scale_is_clamped_as_published(tmp_path: Path) -> None:
    write_medclip(tmp_path)
    assert load(f"medclip:{tmp_path}").logit_scale == pytest.approx(float(np.exp(4.6052)), rel=1e-6)


def test_weights_as_a_plain_state_dict_are_the_same_model(tmp_path: Path) -> None:
    """PLIP publishes pytorch_model.bin, and the old end-of-text id 2 in its configuration."""
    from safetensors.torch import load_file

    reference = write_transformers_clip(tmp_path)
    before = load(str(tmp_path)).identity
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    vlm = load(str(tmp_path))
    assert vlm.identity == before
    with torch.no_grad():
        assert torch.allclose(vlm.encode_texts(TEXTS), reference.texts(TEXTS), atol=1e-5)


def test_bfloat16_weights(tmp_path: Path) -> None:
    write_transformers_clip(tmp_path)
    vlm = load(str(tmp_path))
    x = torch.rand(2, *vlm.input_shape)
    with torch.no_grad():
        expected = vlm.encode_image(x)
        features = vlm.to(torch.bfloat16).encode_image(x)
        assert features.dtype == vlm.encode_texts(TEXTS).dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(features.float(), expected).min() > 0.995


def test_the_embedded_demo_loads_through_the_same_adapter() -> None:
    if not (Path(certimed.vlm.__file__).parents[1] / "assets" / "demo_clip").is_dir():
        pytest.skip("the demo model is not built")
    vlm = load("demo")
    assert vlm.name == "demo" and vlm.encode_image(torch.rand(1, *vlm.input_shape)).shape == (1, vlm.embedding_dim)


@pytest.mark.parametrize(
    ("text", "count"),
    [("An H&E image patch of", 7), ("a histopathology slide showing", 7), ("An H&E image of", 6)],
)
def test_published_contexts_have_the_known_number_of_clip_tokens(text: str, count: int) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    assert len(SimpleTokenizer().encode(text)) == count
