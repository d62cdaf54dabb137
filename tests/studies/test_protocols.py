"""The presets hold what the published protocols say, and splits never tear a sequence apart."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from certimed.errors import InputError
from certimed.metrics import PUBLISHED_RADII
from certimed.studies import (
    CLASSIFICATION_DATASETS,
    MODELS,
    PROTOCOL,
    SEGMENTATION_DATASETS,
    SEGMENTATION_PROTOCOL,
    SWEEPS,
    SplitRule,
    classification_preset,
    cvc_sequence,
    model_spec,
    segmentation_preset,
    split_images,
)
from certimed.vlm.heads import checked_class_names, checked_templates

DATA = Path(os.environ.get("CERTIMED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def test_the_classification_protocol_is_the_published_one() -> None:
    assert PROTOCOL.sigmas == (0.1, 0.25, 0.5, 1.0)
    assert (PROTOCOL.n0, PROTOCOL.n, PROTOCOL.alpha, PROTOCOL.batch_size) == (100, 10_000, 0.001, 100)
    assert PROTOCOL.radii == PUBLISHED_RADII
    assert (PROTOCOL.shots, PROTOCOL.epochs, PROTOCOL.context, PROTOCOL.recipe) == (16, 50, 5, "published")
    assert (PROTOCOL.copies, PROTOCOL.steps, PROTOCOL.lr) == (100, 1, 5e-3)
    assert (PROTOCOL.test_images, PROTOCOL.ablation_images) == (500, 100)
    assert SWEEPS["shots"] == SWEEPS["context"] == (2, 4, 8, 16, 32, 64)
    classes = {name: len(preset.classes) for name, preset in CLASSIFICATION_DATASETS.items()}
    assert classes == {"kather": 9, "pannuke": 2, "sicapv2": 4, "skincancer": 16, "covid19": 2, "rsna18": 3}
    assert classification_preset("kather").class_names[5] == "smooth muscle"
    with pytest.raises(FrozenInstanceError):
        PROTOCOL.n = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", CLASSIFICATION_DATASETS)
def test_baseline_and_learnt_methods_share_one_sentence(name: str) -> None:
    preset = classification_preset(name)
    checked_class_names(preset.class_names)
    checked_templates(preset.template)
    checked_templates(preset.published_template)
    assert preset.template == f"{preset.initial_context} {{}}."


def test_models_resolve_to_specs_and_medclip_to_a_remedy() -> None:
    kather, rsna = classification_preset("kather"), classification_preset("rsna18")
    assert model_spec("plip", kather) == "hf:vinid/plip"
    assert model_spec("quiltnet", kather) == "open_clip:hf-hub:wisdomik/QuiltNet-B-32"
    assert model_spec("biomedclip", rsna) == "biomedclip"
    assert model_spec("hf:some/other", kather) == "hf:some/other"
    assert "ONE channel" in MODELS["medclip"].space and any("ONE channel" in note for note in rsna.notes)
    with pytest.raises(InputError, match=r"medclip cannot be fetched by name.*medclip:FOLDER"):
        model_spec("medclip", rsna)
    with pytest.raises(InputError, match=r"medclip is not used with kather \(its models: plip, quiltnet"):
        model_spec("medclip", kather)
    with pytest.raises(InputError, match="data set kathar is unknown; use one of kather"):
        classification_preset("kathar")


def test_the_segmentation_protocol_is_the_published_one() -> None:
    protocol = SEGMENTATION_PROTOCOL
    assert (protocol.n0, protocol.n, protocol.alpha, protocol.tau) == (10, 100, 0.001, 0.75)
    assert protocol.sigmas == (0.25, 0.5, 1.0) and protocol.correction == "holm"
    sizes = {name: preset.size for name, preset in SEGMENTATION_DATASETS.items()}
    assert sizes == {
        "jsrt": (512, 512),
        "montgomery": (512, 512),
        "shenzhen": (512, 512),
        "isic2018": (384, 512),
        "cvc-clinicdb": (288, 384),
    }
    assert len(segmentation_preset("jsrt").class_names) == 4
    with pytest.raises(InputError, match="use one of jsrt"):
        segmentation_preset("lungs")


def test_published_sizes_and_shares() -> None:
    cvc = segmentation_preset("cvc-clinicdb")
    frames = [f"{frame}.tif" for frame in range(1, 613)]
    parts = split_images(frames, cvc.published_split)
    assert [len(part) for part in parts] == [490, 61, 61]
    isic = split_images([f"ISIC_{i:07d}" for i in range(2694)], segmentation_preset("isic2018").published_split)
    assert [len(part) for part in isic] == [2694 - 269 - 269, 269, 269]


@pytest.mark.parametrize("total", [3, 10, 97, 612])
def test_parts_are_disjoint_complete_and_do_not_depend_on_the_order(total: int) -> None:
    ids = [f"image {i}" for i in range(total)]
    parts = split_images(ids, SplitRule())
    assert sorted(index for part in parts for index in part) == list(range(total)) and all(parts)
    backwards = split_images(ids[::-1], SplitRule())
    assert {ids[i] for i in parts.test} == {ids[::-1][i] for i in backwards.test}
    if total > 10:
        assert split_images(ids, SplitRule(seed=43)).test != parts.test


def test_a_split_by_sequence_keeps_sequences_whole_where_the_published_one_tears_nearly_all() -> None:
    cvc = segmentation_preset("cvc-clinicdb")
    frames = [f"{frame}.tif" for frame in range(1, 613)]
    sequences = [cvc_sequence(frame) for frame in frames]
    whole = split_images(frames, cvc.leak_free_split, sequences)
    per_part = [{sequences[i] for i in part} for part in whole]
    assert sum(len(found) for found in per_part) == 29 == len(set.union(*per_part))
    assert [len(part) for part in whole] == pytest.approx([490, 61, 61], abs=25)
    torn = split_images(frames, cvc.published_split)
    assert len({sequences[i] for i in torn.train} & {sequences[i] for i in torn.test}) > 20
    with pytest.raises(InputError, match="needs the sequence of each"):
        split_images(frames, cvc.leak_free_split)


def test_sequences_of_frames() -> None:
    sizes = Counter(cvc_sequence(str(frame)) for frame in range(1, 613))
    assert len(sizes) == 29 and sizes[1] == 25 and sizes[10] == 6 and sizes[29] == 21
    assert cvc_sequence("Original/26.tif") == 2
    for name in ("0.png", "613.png", "frame.png"):
        with pytest.raises(InputError, match="not named after a frame"):
            cvc_sequence(name)


def test_sequences_agree_with_the_real_data() -> None:
    path = DATA / "seg_polyp_cvcclinicdb.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    with np.load(path, allow_pickle=False) as stored:
        assert [cvc_sequence(str(name)) for name in stored["files"]] == stored["sequence"].tolist()


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(InputError, match="repeat"):
        split_images(["a", "a", "b"], SplitRule())
    with pytest.raises(InputError, match="2 images cannot"):
        split_images(["a", "b"], SplitRule())
    with pytest.raises(InputError, match="2 groups cannot"):
        split_images(["a", "b", "c"], SplitRule(by="patient"), ["p", "p", "q"])
