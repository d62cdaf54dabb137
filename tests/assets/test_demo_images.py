"""Certificates of real demo images do not depend on what else is certified."""

import random

import pytest
import torch

from certimed import SmoothedClassifier
from certimed.assets import asset, demo_prompts
from certimed.data import class_balanced, open_dataset
from certimed.vlm import ZeroShotClassifier, load


@pytest.mark.slow
def test_twenty_images_alone_shuffled_and_in_two_halves():
    prompts = demo_prompts()
    entries = [f"{slug}={words}" for slug, words in prompts["classes"].items()]
    dataset = class_balanced(open_dataset(asset("demo_images"), classes=entries), 20, seed=0)
    vlm = load("demo")
    smoothed = SmoothedClassifier(ZeroShotClassifier(vlm, dataset.class_names, prompts["templates"]), len(entries), 0.5)
    images = [(item, vlm.preprocess(torch.from_numpy(dataset.load(i).pixels))) for i, item in enumerate(dataset.ids)]

    def certified(part):
        return {certificate.item: certificate.to_json() for certificate in smoothed.certify_many(part, n0=20, n=200)}

    together = certified(images)
    shuffled = random.Random(1).sample(images, len(images))
    assert certified(shuffled) == together
    assert certified(images[:10]) | certified(images[10:]) == together
    for pair in images:
        assert certified([pair]) == {pair[0]: together[pair[0]]}
