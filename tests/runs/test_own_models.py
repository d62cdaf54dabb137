"""A user's own PyTorch classifier and segmenter through the commands: certified, resumed, verified, redrawn."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helper import call
from PIL import Image

from certimed import ClassificationModel, InputError, ModelError, SmoothedClassifier
from certimed.classifiers import load_classifier, load_prompted
from certimed.data import open_dataset
from certimed.runs import RunFolder

MODULE = '''
import torch
from torch import nn
from certimed import ClassificationModel
from certimed.segmenters import SegmentationModel

class Brightness(nn.Module):
    """Two scores from the mean grey level; the weights are a level."""
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.conv.weight)
        nn.init.constant_(self.conv.bias, LEVEL)
        self.dropout = nn.Dropout(0.5)
    def forward(self, x):
        level = self.dropout(self.conv(x)).flatten(1).mean(dim=1)
        return torch.stack([-level, level], dim=1)

class Threshold(nn.Module):
    def forward(self, x):
        return x.mean(dim=1, keepdim=True) - 0.5

LEVEL = -0.5
def bare(): return Brightness()
def whole(): return ClassificationModel(Brightness(), input_shape=(1, 8, 8), class_names=("dark", "light"))
def swapped(): return ClassificationModel(Brightness(), input_shape=(1, 8, 8), class_names=("light", "dark"))
def other(): return ClassificationModel(Brightness(), input_shape=(1, 8, 8), class_names=("left", "right"))
def segmenter(): return Threshold()
def adapted(): return SegmentationModel(Threshold(), num_classes=2, output="binary logit", in_channels=1)
def broken(): raise RuntimeError("weights are\\nnot here")
def nothing(): return 3
def function(): return lambda x: x
'''


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a module ``my_models``, images of two classes, and the same images with masks."""
    (tmp_path / "my_models.py").write_text(MODULE)
    for index, (name, level) in enumerate([("dark", 40), ("dark", 110), ("light", 140), ("light", 210)]):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        grey = np.full((10, 10), level, np.uint8)
        Image.fromarray(grey).save(tmp_path / "data" / name / f"{index}.png")
        for kind, pixels in (("images", np.where(np.arange(10) < 5, 30, grey).astype(np.uint8)), ("masks", None)):
            (tmp_path / "masked" / kind).mkdir(parents=True, exist_ok=True)
            mask = np.where(np.arange(10) < 5, 0, np.full((10, 10), level > 127)).astype(np.uint8)
            Image.fromarray(mask if pixels is None else pixels).save(tmp_path / "masked" / kind / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    yield tmp_path
    sys.modules.pop("my_models", None)


BARE = ("--model", "python:my_models:bare", "--allow-code", "--size", "8x8", "--data", "data")
FEW = ("--sigma", 0.25, "--n0", 10, "--n", 60, "--out", "run")


def records():
    return list(RunFolder.open(Path("run")).records())


def saved():
    return json.loads(Path("run/run.json").read_text())


def test_a_bare_module_is_certified_verified_and_redrawn(place):
    assert "4 certified, 0 failed" in call("certify", "classes", *BARE, *FEW).text
    assert saved()["classes"] == ["dark", "light"]
    (entry,) = saved()["methods"]
    assert (entry["name"], entry["identity"]) == ("plain", records()[0].certificates["plain"].provenance.model)
    assert "true: 4 certificates of 4 images" in call("verify", "run").text
    redrawn = call("verify", "run", "--resample", 4, *BARE[:3], "--data", "data").text
    assert redrawn.count(": equal") == 5  # the four, and one certified again under a salt


def test_counts_are_those_of_the_engine(place):
    call("certify", "classes", *BARE, *FEW)
    model = load_classifier("python:my_models:bare", allow_code=True, size=(8, 8))
    dataset = open_dataset("data")
    for index, record in enumerate(records()):
        x = model.preprocess(torch.from_numpy(dataset.load(index).pixels))
        own = SmoothedClassifier(model, 2, 0.25).certify(x, n0=10, n=60, item_id=record.item)
        found = record.certificates["plain"]
        assert (found.counts, found.radius, found.prediction) == (own.counts, own.radius, own.prediction)
        assert record.clean["plain"] == record.label


def test_without_consent_nothing_of_it_runs(place):
    (place / "my_models.py").write_text("raise SystemExit('it ran')")
    for words in (
        ("certify", "classes", "--data", "data", "--out", "run"),
        ("certify", "masks", "--data", "masked", "--out", "run", "--output", "logits"),
        ("plan", "classes", "--data", "data"),
        ("tune", "--data", "data", "--out", "p.safetensors"),
    ):
        said = call(*words, "--model", "python:my_models:bare", code=2).text
        assert "runs Python code; read it, and add --allow-code if you trust it" in said
        assert said.count("error:") == 1
    assert not Path("run").exists()


def test_resuming_asks_for_consent_again(place):
    call("certify", "classes", *BARE, *FEW)
    assert "add --allow-code" in call("certify", "--resume", "run", code=2).text
    assert "4 certified" in call("certify", "--resume", "run", "--allow-code").text


def test_changed_code_or_weights_are_another_model(place):
    call("certify", "classes", *BARE, *FEW)
    for change in (("LEVEL = -0.5", "LEVEL = -0.4"), ("import torch\n", "import torch  # edited\n")):
        (place / "my_models.py").write_text(MODULE.replace(*change))
        sys.modules.pop("my_models", None)
        assert "model.identity was" in call("certify", "--resume", "run", "--allow-code", code=2).text


def test_the_order_of_class_names_is_the_models(place):
    call("certify", "classes", "--model", "python:my_models:swapped", "--allow-code", "--data", "data", *FEW)
    assert saved()["classes"] == ["light", "dark"]
    first = records()[0]
    assert first.item.startswith("dark/")
    assert (first.label, first.clean) == (1, {"plain": 0})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("python:my_models:bare",), "add --size HEIGHTxWIDTH"),
        (("python:my_models:whole", "--size", "8x8"), "states its own input size; leave --size out"),
        (("python:my_models:other",), "is of class 'dark', which is none of the classes given (left, right)"),
        (("python:my_models:whole", "--classes", "light,dark"), "in the order of the scores"),
        (("python:my_models:bare", "--size", "8x8", "--classes", "dark,light,grey"), "returns 2 scores and"),
        (("python:my_models:whole", "--template", "a {}."), "is a plain classifier, which has no text to prompt"),
        (("python:my_models:whole", "--methods", "zero-shot"), "needs a model that reads prompts"),
        (("python:my_models:broken",), "RuntimeError: weights are not here, in my_models.py line"),
        (("python:my_models:nothing",), "returned int, which cannot be called"),
        (("python:my_models:function",), "returned function; return an nn.Module"),
        (("python:my_models:absent",), "has no function absent"),
        (("python:absent_module:make",), "there is no module absent_module to import"),
        (("python:my_models",), "is not python:MODULE:FACTORY"),
        (("demo", "--size", "8x8"), "states its own input size"),
    ],
)
def test_refusals_are_one_sentence(place, words, said):
    text = call("certify", "classes", "--data", "data", "--out", "run", "--allow-code", "--model", *words, code=2).text
    assert said in text
    assert text.count("error:") == 1
    assert "Traceback" not in text
    assert not Path("run").exists()


def test_unlabelled_images_need_no_names(place):
    call("certify", "classes", *BARE[:-1], "data/dark", *FEW)
    assert saved()["classes"] == ["class 0", "class 1"]


def test_plan_times_it_and_tune_refuses_it(place):
    assert "noisy copies/s here" in call("plan", "classes", *BARE, "--batch-size", 8).text
    assert "reads no prompt" in call("tune", *BARE[:3], "--data", "data", "--out", "p.safetensors", code=2).text
    with pytest.raises(InputError, match="reads no prompt"):
        load_prompted("python:my_models:whole", allow_code=True)


def test_segmenters(place):
    made = ("--allow-code", "--data", "masked", *FEW)
    said = call("certify", "masks", "--model", "python:my_models:segmenter", *made, code=2).text
    assert "does not say how many classes it has" in said
    named = (*made, "--classes", "background,light")
    assert "output is missing" in call("certify", "masks", "--model", "python:my_models:segmenter", *named, code=2).text
    assert (
        "4 certified"
        in call("certify", "masks", "--model", "python:my_models:segmenter", *named, "--output", "binary logit").text
    )
    assert len(saved()["model"]["identity"]) == 64
    assert "true: 4 certificates" in call("verify", "run").text
    assert "add --allow-code" in call("certify", "--resume", "run", code=2).text
    call("certify", "masks", "--model", "python:my_models:adapted", *made[:-1], "adapted")
    assert (
        "states 'binary logit' itself"
        in call(
            "certify", "masks", "--model", "python:my_models:adapted", *made[:-1], "again", "--output", "logits", code=2
        ).text
    )


class Wrong(torch.nn.Module):
    """Answers in a way that cannot be certified."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: torch.rand(len(x), 3), "answers differently when asked twice"),
        (lambda x: x.flatten(1).mean(dim=1, keepdim=True), "leaves nothing to decide"),
        (lambda x: x.mean(dim=(1, 2, 3)), "a classifier returns one tensor"),
        (lambda x: [x], "returned list"),
        (lambda x: x @ torch.ones(5, 5), "fails on input (2, 3, 8, 8) (RuntimeError"),
    ],
)
def test_networks_that_cannot_be_certified(answer, said):
    with pytest.raises(ModelError) as caught:
        ClassificationModel(Wrong(answer), input_shape=(3, 8, 8))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_identity_covers_weights_and_settings():
    def make(bias=0.0, **settings):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(bias)
        return ClassificationModel(network, **{"input_shape": (1, 8, 8), **settings}).identity

    assert make() == make()
    others = [make(0.5), make(mean=(0.5,)), make(resize="shortest"), make(class_names=("a", "b"))]
    assert len({make(), *others}) == 5
    with pytest.raises(InputError, match="2 scores; give one name a score"):
        make(class_names=("a", "b", "c"))
