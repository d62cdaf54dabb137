"""Statements that README and documentation quote are those of the program, word for word."""

from __future__ import annotations

import re

import pytest
import torch
from docs_pages import ROOT

from certimed import ClassCertificate, SmoothedClassifier
from certimed.assets import asset, demo_prompts
from certimed.data import open_dataset
from certimed.vlm import ZeroShotClassifier, load

pytest.importorskip("transformers")
ITEM = "coronal-frontal/y+047.png"


@pytest.fixture(scope="module")
def certificate() -> ClassCertificate:
    """The certificate of the slice that is quoted."""
    vlm, prompts = load("demo"), demo_prompts()
    dataset = open_dataset(asset("demo_images"), classes=[f"{a}={b}" for a, b in prompts["classes"].items()])
    model = ZeroShotClassifier(vlm, list(prompts["classes"].values()), prompts["templates"])
    image = torch.from_numpy(dataset.load(dataset.ids.index(ITEM)).pixels)
    smoothed = SmoothedClassifier(model, len(prompts["classes"]), sigma=0.5)
    return smoothed.certify(vlm.preprocess(image), item_id=ITEM).with_geometry(vlm.geometry(tuple(image.shape)))


def quotes(page: str) -> list[str]:
    """Quoted paragraphs of a page, on one line each."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"(?:^> .*\n)+", text, re.MULTILINE)
    return [" ".join(quote.replace("> ", " ").split()) for quote in found]


def test_quoted_statements_are_the_programs(certificate: ClassCertificate) -> None:
    native = certificate.statement(list(demo_prompts()["classes"].values()))
    without = re.sub(r"At native resolution .*? by more than [\d.]+\. ", "", native)
    assert native != without
    assert without in quotes("README.md")
    assert native in quotes("docs/certificate.md")


def test_numbers_beside_them_are_the_programs(certificate: ClassCertificate) -> None:
    units = certificate.units()
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{int(units.l2_grey_levels)} grey levels in all, or {int(100 * units.rms_grey_levels) / 100} grey" in text
    page = (ROOT / "docs" / "certificate.md").read_text(encoding="utf-8")
    assert f"{certificate.real_radius:.6f}" in page and f"{certificate.variation * 1e10:.1f}e-10" in page
