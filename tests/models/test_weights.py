"""Weights into networks: in every loader each tensor has its place, and a file that is no weights file says so."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import FILES, FileKind, grey, read, unet, write, write_diffusers
from safetensors.torch import save_file
from torch import Tensor, nn

from certimed.denoising import ModuleDenoiser, OneStepDenoiser, load_denoiser, load_guided_diffusion, wrap_unet
from certimed.errors import InputError, ModelError
from certimed.models.fitting import compare, fit
from certimed.models.weights import Weights, find_weights, read_weights
from certimed.segmenters import load_segmenter

for _library in ("transformers", "open_clip", "diffusers", "monai", "segmentation_models_pytorch"):
    pytest.importorskip(_library)

SHARED = Path(os.environ.get("CERTIMED_SHARED", Path(__file__).resolve().parents[3] / "shared"))
needs_cases = pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason=f"no {SHARED / 'cases'}")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def original(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("original")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                FILES[name].write(made[name])
        return made[name]

    return original


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, originals: Callable[[str], Path]) -> tuple[FileKind, Path]:
    """A row of the table and a copy of its folder."""
    name = request.param
    shutil.copytree(originals(name), tmp_path / "model")
    return FILES[name], tmp_path / "model"


every_loader = pytest.mark.parametrize("place", list(FILES), indirect=True)


def change(kind: FileKind, folder: Path, edit: Callable[[dict[str, Tensor]], dict[str, Any]]) -> None:
    write(folder / kind.file, edit(read(folder / kind.file)))


@every_loader
def test_two_loads_are_one_model_and_draw_nothing(place: tuple[FileKind, Path]) -> None:
    kind, folder = place
    before = torch.random.get_rng_state()
    first, second = kind.load(folder), kind.load(folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.identity == second.identity and first.identity_complete and len(first.identity) == 64
    with torch.inference_mode():
        assert torch.equal(kind.answer(first), kind.answer(second))
    change(kind, folder, lambda state: state | {kind.tensor: state[kind.tensor] * 1.01})
    assert kind.load(folder).identity != first.identity
    assert first.libraries and all(importlib.metadata.version(name) for name in first.libraries)


@every_loader
def test_a_missing_tensor_is_named(place: tuple[FileKind, Path]) -> None:
    kind, folder = place
    change(kind, folder, lambda state: {name: value for name, value in state.items() if name != kind.tensor})
    _refused(kind, folder, "missing|lacks|neither", kind.tensor)


@every_loader
def test_an_unexpected_tensor_is_named(place: tuple[FileKind, Path]) -> None:
    kind, folder = place
    change(kind, folder, lambda state: state | {"stray.weight": torch.zeros(2)})
    _refused(kind, folder, "1 unexpected|no place", "stray.weight")


@every_loader
def test_a_tensor_of_another_shape_is_named(place: tuple[FileKind, Path]) -> None:
    kind, folder = place
    change(kind, folder, lambda state: state | {kind.tensor: state[kind.tensor][:-1].clone()})
    _refused(kind, folder, "of another shape|do not compare", kind.tensor)


@every_loader
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model._orig_mod.", "net.module."])
def test_prefixes_of_wrappers_come_off_and_are_named(place: tuple[FileKind, Path], prefix: str) -> None:
    kind, folder = place
    original = kind.load(folder)
    change(kind, folder, lambda state: {prefix + name: value for name, value in state.items()})
    model = kind.load(folder)
    assert any(f"the prefix {prefix!r} was taken off the names in" in note for note in model.notes)
    assert model.identity == original.identity
    with torch.inference_mode():
        assert torch.equal(kind.answer(model), kind.answer(original))
    change(kind, folder, lambda state: {"foreign." + name: value for name, value in state.items()})
    _refused(kind, folder, "", "foreign.")


def _refused(kind: FileKind, folder: Path, *parts: str) -> None:
    with pytest.raises(ModelError) as caught:
        kind.load(folder)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 900
    name = parts[1]
    # Loaders of towers and of renamed layouts speak of the tensor inside.
    pieces = name.removesuffix(".weight").split(".")
    assert any(".".join(pieces[i:]) in said for i in range(len(pieces))) or "projection" in said or "to_" in said, said
    assert any(part in said for part in parts[0].split("|")), said


# --- files that are none --------------------------------------------------------------------------------------------


def _torch_bytes(content: object, **options: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _safetensors_bytes() -> bytes:
    from safetensors.torch import save

    return save({"weight": torch.zeros(100)})


def _zip_of(name: str, content: bytes) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


class Bomb:
    """Unpickling it would end the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


NO_WEIGHTS: list[tuple[bytes, str]] = [
    (b"", "is empty"),
    (b"\0" * 4096, "zeros only"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS pointer.*git lfs pull"),
    (b"\n<!DOCTYPE html><html><head><title>Sign in</title>", r"web page \(HTML\)"),
    (b'{"error": "Repository not found"}', r"text file \(JSON\)"),
    (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "HDF5 file"),
    (b"\x1f\x8b\x08\0" + b"\0" * 100 + b"x", "packed archive; unpack"),
    (_torch_bytes({"weight": torch.zeros(100)})[:-200], "PyTorch file cut off after"),
    (_safetensors_bytes()[:-30], "damaged or cut off"),
    (_safetensors_bytes()[:40], "safetensors file cut off after 40 bytes"),
    (_torch_bytes({"weight": torch.zeros(100)}, _use_new_zipfile_serialization=False)[:-300], "damaged or cut off"),
    (_zip_of("weights/model.bin", b"x"), "zip archive without PyTorch weights"),
    (_zip_of("model/code/__torch__.py", b"x") + b"", "zip archive without"),
    (b"rubbish, and more of it", "no weights file"),
    (pickle.dumps({"state_dict": Bomb()}, protocol=2), "holds more than tensors"),
    (_torch_bytes({"state_dict": Bomb()}), r"asks for .*exit.* can run code"),
    (_torch_bytes([torch.zeros(2)]), "one dictionary of tensors; save"),
    (_torch_bytes({"epoch": 3}), "one dictionary of tensors; save"),
]


@pytest.mark.parametrize(("content", "said"), NO_WEIGHTS)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_what_is_no_weights_file_says_what_it_is(tmp_path: Path, content: bytes, said: str, ending: str) -> None:
    path = tmp_path / f"w{ending}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) and len(str(caught.value)) < 600


def test_torchscript_is_named_and_not_run(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"TorchScript archive, a program with its weights; save .*python:MODULE"):
        read_weights(tmp_path / "w.pt")


def test_the_content_and_not_the_ending_tells_the_format(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(_safetensors_bytes())
    (tmp_path / "w.safetensors").write_bytes(_torch_bytes({"weight": torch.zeros(100)}))
    (tmp_path / "old.pth").write_bytes(_torch_bytes({"weight": torch.zeros(100)}, _use_new_zipfile_serialization=False))
    for name in ("w.bin", "w.safetensors", "old.pth"):
        assert read_weights(tmp_path / name).tensors["weight"].shape == (100,)
    with pytest.raises(InputError, match="no weights file"):
        read_weights(tmp_path / "absent.pt")


# --- shards ---------------------------------------------------------------------------------------------------------


def shards(folder: Path, **edit: Any) -> Path:
    save_file({"a": torch.zeros(1), "b": torch.ones(2)}, folder / "1.safetensors")
    save_file({"c": torch.full((3,), 2.0)}, folder / "2.safetensors")
    places = {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors", **edit}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return index


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    shards(tmp_path)
    found = find_weights(tmp_path, ("model.safetensors",), "add it")
    assert {name: float(value.sum()) for name, value in read_weights(found).tensors.items()} == {"a": 0, "b": 2, "c": 6}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"d": "3.safetensors"}, r"names 3 shards and 1 are not beside it \(3.safetensors\)"),
        ({"d": "../1.safetensors"}, "not beside it"),
        ({"d": "1.safetensors"}, r"lack 1 tensors it lists \(d\)"),
        ({"d": 3}, "no weight_map"),
    ],
)
def test_incomplete_shards_are_refused(tmp_path: Path, edit: dict[str, Any], said: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(shards(tmp_path, **edit), folder)
    for name in ("1.safetensors", "2.safetensors"):
        shutil.copy(tmp_path / name, folder)
    with pytest.raises(ModelError, match=said):
        read_weights(folder / "model.safetensors.index.json")


@pytest.mark.parametrize("name", ["transformers", "segformer", "diffusers"])
def test_a_sharded_model_is_the_same_model(name: str, tmp_path: Path, originals: Callable[[str], Path]) -> None:
    kind, folder = FILES[name], tmp_path / "model"
    shutil.copytree(originals(name), folder)
    whole, file = kind.load(folder), folder / kind.file
    state = read(file)
    first = dict(list(state.items())[::2])
    second = {key: value for key, value in state.items() if key not in first}
    write(file.with_name("p1.safetensors"), first)
    write(file.with_name("p2.safetensors"), second)
    places = dict.fromkeys(first, "p1.safetensors") | dict.fromkeys(second, "p2.safetensors")
    file.with_name(f"{file.name}.index.json").write_text(json.dumps({"weight_map": places}))
    file.unlink()
    assert kind.load(folder).identity == whole.identity
    file.with_name("p2.safetensors").unlink()
    with pytest.raises(ModelError, match="not beside it"):
        kind.load(folder)


# --- what training loops write --------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def prefixed(prefix: str, state: dict[str, Tensor], factor: float = 1.0) -> dict[str, Tensor]:
    return {prefix + name: value * factor if value.is_floating_point() else value for name, value in state.items()}


def filled(tmp_path: Path, content: object, part: str | None = None, **options: Any) -> tuple[nn.Module, Any]:
    torch.save(content, tmp_path / "w.pt")
    made = network()
    for value in made.state_dict().values():
        value.zero_()
    return made, fit(made, read_weights(tmp_path / "w.pt", part), **options)


def weight(made: Any) -> Tensor:
    value: Tensor = made[0].weight
    return value


STATE = network().state_dict()


@pytest.mark.parametrize(
    "content",
    [
        STATE, {"state_dict": STATE, "epoch": 3}, {"model": STATE, "optimizer": {"state": {0: {"exp": torch.ones(1)}}}},
        {"model": {"state_dict": STATE}}, {"weird_name": STATE}, {"state_dict": prefixed("model.module.", STATE)},
        {"state_dict": prefixed("module.", STATE) | {"n_averaged": torch.tensor(3)}},
        {name.replace("0.", "0._orig_mod."): value for name, value in STATE.items()},
        {name: value for name, value in STATE.items() if not name.endswith("num_batches_tracked")},
        prefixed("", STATE) | {"position_ids": torch.arange(3)},
    ],
)  # fmt: skip
def test_usual_layouts_are_opened(tmp_path: Path, content: Any) -> None:
    assert torch.equal(weight(filled(tmp_path, content)[0]), STATE["0.weight"])


def test_averaged_weights_beside_are_named_and_can_be_asked_for(tmp_path: Path) -> None:
    beside = {"state_dict": STATE, "ema_state_dict": prefixed("module.", STATE, 2)}
    inside = {"state_dict": prefixed("model.", STATE) | prefixed("ema_model.module.", STATE, 2)}
    for content, part in ((beside, "ema_state_dict"), (inside, "ema_model")):
        made, found = filled(tmp_path, content)
        assert torch.equal(weight(made), STATE["0.weight"])
        assert any(f"not used; ask for them with part={part!r}" in note for note in found.notes)
        made, found = filled(tmp_path, content, part)
        assert torch.equal(weight(made), 2 * STATE["0.weight"])
        assert found.notes[0] == f"w.pt: the weights {part!r} are used, as asked"
    with pytest.raises(InputError, match=r"holds no part 'ema'; it holds ema_state_dict, state_dict"):
        filled(tmp_path, beside, "ema")


def test_parts_of_a_training_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    content = {"state_dict": prefixed("model._orig_mod.", STATE) | {"loss.pos_weight": torch.ones(1)}}
    with pytest.raises(ModelError, match=r"1 unexpected \(loss.pos_weight\); .* leave them out with part='model'"):
        filled(tmp_path, content)
    assert torch.equal(weight(filled(tmp_path, content, "model")[0]), STATE["0.weight"])


def test_two_networks_in_one_file_are_not_chosen_from(tmp_path: Path) -> None:
    content = {"generator": STATE, "critic": prefixed("", STATE, 2)}
    with pytest.raises(ModelError, match="but critic, generator; say which with part"):
        filled(tmp_path, content)
    assert torch.equal(weight(filled(tmp_path, content, "critic")[0]), 2 * STATE["0.weight"])


def test_a_prefix_of_the_networks_own_stays() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    made = Own()
    for prefix in ("", "model.", "module."):
        assert fit(made, Weights(prefixed(prefix, made.state_dict()), "w.pt")).notes == (
            () if not prefix else (f"the prefix {prefix!r} was taken off the names in w.pt",)
        )
    with pytest.raises(ModelError, match=r"2 missing \(model.weight, model.bias\), 2 unexpected \(weight, bias\)"):
        fit(made, Weights(dict(made.model.state_dict()), "w.pt"))


def test_prefixes_of_some_names_only_are_not_guessed_about() -> None:
    state = {f"module.{name}" if name.startswith("0") else name: value for name, value in STATE.items()}
    with pytest.raises(ModelError, match=r"2 missing \(0.weight, 0.bias\), 2 unexpected \(module.0.weight"):
        fit(network(), Weights(state, "w.pt"))


def test_refusals_list_three_names_of_many() -> None:
    with pytest.raises(ModelError) as caught:
        fit(network(), Weights({"other": torch.ones(1)}, "w.pt"), advice="do this")
    assert str(caught.value) == (
        "the weights w.pt do not fit this Sequential, tensor by tensor: 6 missing (0.weight, 0.bias, 1.weight, ... 6 "
        "in all), 1 unexpected (other); do this"
    )


def test_quantised_weights_are_refused_and_half_ones_taken() -> None:
    with pytest.raises(ModelError, match=r"hold 0.weight as torch.int8, but this Sequential computes in torch.float32"):
        fit(network(), Weights(STATE | {"0.weight": torch.zeros(2, 1, 3, 3, dtype=torch.int8)}, "w.pt"))
    made = network()
    fit(made, Weights({name: value.half() if "weight" in name else value for name, value in STATE.items()}, "w.pt"))
    assert torch.equal(weight(made), STATE["0.weight"].half().float())


def test_tied_tensors_are_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.second.weight = self.first.weight

    made = Tied()
    fit(made, Weights({"first.weight": torch.eye(2)}, "w.pt"))
    assert torch.equal(made.second.weight, torch.eye(2))
    with pytest.raises(ModelError, match="2 missing"):
        fit(made, Weights({}, "w.pt"))


def test_a_sketch_on_the_meta_device_is_compared_with() -> None:
    with torch.device("meta"):
        sketch = nn.Conv2d(1, 2, 3)
    assert set(compare(sketch, Weights(dict(nn.Conv2d(1, 2, 3).state_dict()), "w"), "").tensors) == {"weight", "bias"}
    with pytest.raises(ModelError, match=r"1 missing \(bias\)"):
        compare(sketch, Weights({"weight": torch.zeros(2, 1, 3, 3)}, "w"), "")


# --- normalisation of segmenters ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smp_state() -> dict[str, Tensor]:
    import segmentation_models_pytorch as smp

    state: dict[str, Tensor] = smp.Unet("mobilenet_v2", encoder_weights=None, classes=1).state_dict()
    return state


def checkpoint(folder: Path, state: dict[str, Tensor]) -> str:
    torch.save({"epoch": 1, "state_dict": state}, folder / "model.ckpt")
    return f"smp:Unet:mobilenet_v2:{folder / 'model.ckpt'}"


def buffers(mean: list[float], std: list[float], name: str = "{}") -> dict[str, Tensor]:
    return {name.format(key): torch.tensor(value).view(1, 3, 1, 1) for key, value in (("mean", mean), ("std", std))}


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize("name", ["{}", "pixel_{}", "normalise.{}"])
def test_buffers_of_a_lightning_module_are_used(tmp_path: Path, smp_state: dict[str, Tensor], name: str) -> None:
    plain = load_segmenter(checkpoint(tmp_path, smp_state), output="binary logit", normalise="none")
    spec = checkpoint(tmp_path, prefixed("model.", smp_state) | buffers(*IMAGENET, name))
    model = load_segmenter(spec, output="binary logit")
    assert model.normalisation == {
        "mean": pytest.approx(IMAGENET[0]), "std": pytest.approx(IMAGENET[1]), "channel_order": "rgb",
    }  # fmt: skip
    assert any("are those stored in the checkpoint, taken to be in [0, 1] units" in note for note in model.notes)
    assert model.warnings == () and model.identity != plain.identity
    x = grey(1, 3, 64, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    with torch.inference_mode():
        assert torch.allclose(model(x), plain((x - mean) / std), atol=1e-5)
    # What is stated wins, and the contradiction is said.
    stated = load_segmenter(spec, output="binary logit", mean=0.5, std=0.25)
    assert stated.normalisation["mean"] == [0.5] * 3 and "is not the one stored with" in stated.warnings[0]
    assert load_segmenter(spec, output="binary logit", normalise="none").identity == plain.identity


def test_buffers_in_grey_levels_are_scaled(tmp_path: Path, smp_state: dict[str, Tensor]) -> None:
    levels = ([value * 255 for value in IMAGENET[0]], [value * 255 for value in IMAGENET[1]])
    spec = checkpoint(tmp_path, prefixed("net.", smp_state) | buffers(*levels))
    model = load_segmenter(spec, output="binary logit")
    assert model.normalisation["mean"] == pytest.approx(IMAGENET[0])
    assert any("grey levels 0 to 255" in note for note in model.notes)


def test_half_a_pair_of_buffers_is_unexpected(tmp_path: Path, smp_state: dict[str, Tensor]) -> None:
    spec = checkpoint(tmp_path, prefixed("model.", smp_state) | {"mean": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"1 unexpected \(mean\)"):
        load_segmenter(spec, output="binary logit")


def test_a_network_whose_normalisation_nothing_says_carries_a_warning(
    tmp_path: Path, smp_state: dict[str, Tensor]
) -> None:
    spec = checkpoint(tmp_path, smp_state)
    (warning,) = load_segmenter(spec, output="binary logit").warnings
    assert "nothing says how its input was normalised" in warning and "state normalise" in warning
    for stated in ({"normalise": "none"}, {"normalise": "imagenet"}, {"mean": 0.5}):
        assert load_segmenter(spec, output="binary logit", **stated).warnings == ()


def test_normalisation_by_name_file_and_encoder(
    tmp_path: Path, smp_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    import segmentation_models_pytorch as smp

    spec = checkpoint(tmp_path, smp_state)

    def normalised(**settings: Any) -> dict[str, Any]:
        return load_segmenter(spec, output="binary logit", **settings).normalisation

    assert normalised(normalise="imagenet") == normalised(mean=IMAGENET[0], std=IMAGENET[1])
    (tmp_path / "n.json").write_text(json.dumps({"mean": [0.1, 0.2, 0.3], "std": 0.5}))
    assert normalised(normalise=str(tmp_path / "n.json"))["std"] == [0.5] * 3
    settings = {"mean": [123.0, 117.0, 104.0], "std": [1.0, 1.0, 1.0], "input_space": "BGR", "input_range": [0, 255]}
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda name: settings)
    found = normalised(normalise="encoder")
    assert found["channel_order"] == "bgr" and found["mean"] == pytest.approx([123 / 255, 117 / 255, 104 / 255])
    (tmp_path / "n.json").write_text("{}")
    for settings, said in (
        ({"normalise": "zscore"}, "'zscore' is unknown; use imagenet, none, encoder, MEAN;STD .*, or a JSON file"),
        ({"normalise": str(tmp_path / "n.json")}, "holds no mean and std as numbers"),
        ({"normalise": "none", "mean": 0.5}, "give one of them"),
        ({"mean": [0.1, 0.2]}, "mean has 2 values for 3 channels"),
    ):
        with pytest.raises(InputError, match=said):
            normalised(**settings)


def test_channel_order_is_turned_inside_the_model() -> None:
    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1]

    made = {order: load_segmenter(
        First(), num_classes=2, output="binary logit", in_channels=3, mean=[0.1, 0.2, 0.3], channel_order=order
    ) for order in ("rgb", "bgr")}  # fmt: skip
    x = grey(1, 3, 4, 4)
    assert torch.allclose(made["rgb"](x)[:, 1], x[:, 0] - 0.1) and torch.allclose(made["bgr"](x)[:, 1], x[:, 2] - 0.1)
    with pytest.raises(InputError, match="channel_order='bgr' must be"):
        load_segmenter(First(), num_classes=2, output="binary logit", channel_order="bgr")


def test_an_auxiliary_head_is_named_and_left_out(tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    made = smp.Unet("mobilenet_v2", encoder_weights=None, classes=2, aux_params={"classes": 3})
    made.save_pretrained(tmp_path)
    torch.save(made.state_dict(), tmp_path / "w.pt")
    for spec in (f"smp:{tmp_path}", f"smp:Unet:mobilenet_v2:{tmp_path / 'w.pt'}"):
        model = load_segmenter(spec, output="logits", normalise="none")
        assert any("classification_head." in note and "not used" in note for note in model.notes)
        with torch.inference_mode():
            assert torch.allclose(model(grey(1, 3, 32, 32)), made.eval()(grey(1, 3, 32, 32))[0], atol=1e-5)


def test_a_bundle_that_normalises_hints_at_it(tmp_path: Path, originals: Callable[[str], Path]) -> None:
    shutil.copytree(originals("monai"), tmp_path / "b")
    path = tmp_path / "b" / "configs" / "inference.json"
    document = json.loads(path.read_text())
    document["preprocessing"] = {"_target_": "Compose", "transforms": [{"_target_": "NormalizeIntensityd"}]}
    path.write_text(json.dumps(document))
    (warning,) = load_segmenter(f"monai:{tmp_path / 'b'}", output="logits").warnings
    assert "prepares images with NormalizeIntensityd, and nothing says how" in warning


# --- denoisers ------------------------------------------------------------------------------------------------------


def test_a_pth_is_looked_at_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    torch.save(STATE, tmp_path / "net.pth")
    monkeypatch.setattr(diffusers, "UNet2DModel", None)
    for spec in (tmp_path / "net.pth", f"guided-diffusion:{tmp_path / 'net.pth'}"):
        with pytest.raises(
            ModelError, match=r"no guided-diffusion checkpoint: it has no time_embed.0.weight, but 7 ten"
        ):
            load_denoiser(spec)


def test_another_size_is_refused_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a small network, asked for as the 2.2 GB one: only a sketch without memory is built."""
    from guided_diffusion_files import SMALL, random_checkpoint

    torch.save(random_checkpoint(SMALL), tmp_path / "small.pt")
    filled: list[nn.Module] = []
    monkeypatch.setattr("certimed.denoising.guided_diffusion.fit", lambda network, *_, **__: filled.append(network))
    with pytest.raises(ModelError):
        load_guided_diffusion(tmp_path / "small.pt")
    assert not filled


@pytest.mark.parametrize("condition", [{"num_class_embeds": 5}, {"class_embed_type": "timestep"}])
def test_class_conditioned_diffusion_is_one_sentence(tmp_path: Path, condition: dict[str, Any]) -> None:
    write_diffusers(tmp_path, **condition)
    with pytest.raises(InputError, match=r"class-conditioned diffusion model .*; use an unconditional one"):
        load_denoiser(tmp_path)


def test_other_networks_of_diffusers_are_refused(tmp_path: Path) -> None:
    write_diffusers(tmp_path)
    path = tmp_path / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(InputError, match="is a UNet2DConditionModel, and an unconditional UNet2DModel"):
        load_denoiser(tmp_path)


def test_attention_under_its_old_names_is_the_same_denoiser(tmp_path: Path) -> None:
    write_diffusers(tmp_path)
    today = load_denoiser(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(name: str) -> str:
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        return name

    state = {renamed(name): value for name, value in read(file).items()}
    assert any("proj_attn" in name for name in state)
    write(file, state)
    assert load_denoiser(tmp_path).identity == today.identity


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("scheduler/scheduler_config.json", {"beta_end": 0.03}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "squaredcos_cap_v2"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 500}),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}),
        ("unet/config.json", {"norm_eps": 1e-3}),
        ("unet/config.json", {"act_fn": "relu"}),
        ("unet/config.json", {"freq_shift": 1}),
        ("unet/config.json", {"sample_size": 64}),
    ],
)
def test_each_setting_of_a_diffusers_folder_is_another_denoiser(
    tmp_path: Path, file: str, edit: dict[str, Any]
) -> None:
    write_diffusers(tmp_path)
    before = load_denoiser(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    assert load_denoiser(tmp_path).identity != before.identity


@pytest.mark.parametrize(
    ("name", "file", "edit"),
    [
        ("transformers", "preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5000001]}),
        ("transformers", "preprocessor_config.json", {"resample": 2}),
        ("transformers", "config.json", {"vision_config.hidden_act": "gelu"}),
        ("transformers", "config.json", {"text_config.layer_norm_eps": 1e-3}),
        ("open_clip", "open_clip_config.json", {"preprocess_cfg.interpolation": "bilinear"}),
        ("open_clip", "open_clip_config.json", {"model_cfg.quick_gelu": True}),
        ("biomedclip", "tokenizer_config.json", {"do_lower_case": False}),
        ("biomedclip", "config.json", {"layer_norm_eps": 1e-3}),
        ("medclip", "bert/config.json", {"hidden_act": "relu"}),
        ("medclip", "swin/config.json", {"hidden_act": "relu"}),
        ("segformer", "config.json", {"hidden_act": "relu"}),
        ("segformer", "preprocessor_config.json", {"image_std": [0.5, 0.5, 0.5]}),
        ("small unet", "config.json", None),
        ("monai", "configs/inference.json", {"network_def.adn_ordering": "AND"}),
        ("smp folder", "config.json", {"decoder_interpolation": "bilinear"}),
    ],
)
def test_each_setting_of_a_model_folder_is_another_model(
    tmp_path: Path, originals: Callable[[str], Path], name: str, file: str, edit: dict[str, Any] | None
) -> None:
    kind, folder = FILES[name], tmp_path / "model"
    shutil.copytree(originals(name), folder)
    before = kind.load(folder).identity
    document = json.loads((folder / file).read_text())
    for key, value in (edit or {}).items():
        *parents, last = key.split(".")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    (folder / file).write_text(json.dumps(document, indent=1))
    assert (kind.load(folder).identity == before) is (edit is None)


def test_a_network_of_diffusers_in_hand_is_as_good_as_its_folder(tmp_path: Path) -> None:
    write_diffusers(tmp_path)
    loaded = load_denoiser(tmp_path)
    assert isinstance(loaded, OneStepDenoiser)
    scheduler = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert wrap_unet(loaded.unet, scheduler).identity == loaded.identity

    class Mine(type(unet())):  # type: ignore[misc]
        pass

    mine = Mine(**{key: value for key, value in loaded.unet.config.items() if not key.startswith("_")})
    assert not wrap_unet(mine, scheduler).identity_complete


def test_denoisers_of_ones_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from torch import nn
from certimed.denoising import ModuleDenoiser
def bare(): return nn.Identity()
def level(): return ModuleDenoiser(nn.Identity(), sigma=0.25)
def function(): return lambda x: x
"""
    (tmp_path / "my_denoisers.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(InputError, match="add --allow-code"):
        load_denoiser("python:my_denoisers:bare")
    bare, level = (load_denoiser(f"python:my_denoisers:{name}", allow_code=True) for name in ("bare", "level"))
    assert isinstance(bare, ModuleDenoiser) and bare.identity not in (
        level.identity,
        ModuleDenoiser(nn.Identity()).identity,
    )
    with pytest.raises(InputError, match=r"trained for sigma=0\.25"):
        level.at(0.5)
    with pytest.raises(InputError, match=r"returned function; return an nn\.Module"):
        load_denoiser("python:my_denoisers:function", allow_code=True)
    sys.modules.pop("my_denoisers")


# --- the cases of newcomers -----------------------------------------------------------------------------------------


@needs_cases
def test_the_denoiser_that_lacked_a_tensor() -> None:
    case = SHARED / "cases" / "denoiser-missing-weights"
    with pytest.raises(ModelError, match=r"1 missing \(mid_block.resnets.0.conv1.weight\)"):
        load_denoiser(case / "denoiser")
    first, second = load_denoiser(case / "denoiser_prefix"), load_denoiser(case / "denoiser_prefix")
    assert first.identity == second.identity and "prefix 'module.'" in first.notes[0]


@needs_cases
def test_the_class_conditioned_denoiser() -> None:
    with pytest.raises(InputError, match=r"class-conditioned diffusion model \(num_class_embeds is 5\)"):
        load_denoiser(SHARED / "cases" / "tracebacks" / "classcond")


@needs_cases
def test_the_bundle_of_odd_size() -> None:
    case = SHARED / "cases" / "monai-odd-size"
    model = load_segmenter(f"monai:{case / 'bundle2d'}", output="logits")
    assert model(grey(1, 1, 233, 197)).shape == (1, 2, 233, 197)
    volumetric = load_segmenter(f"monai:{case / 'bundle3d'}", output="logits")
    with pytest.raises(InputError, match=r"is a network of volumes \(3-D\), and a.png is a plane"):
        volumetric.check_axes(2, "a.png")


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason=f"no {SHARED / 'models'}")
@pytest.mark.parametrize(
    ("folder", "module", "factories"),
    [
        ("dncnn", "dncnn", ("denoiser_010", "denoiser_020", "denoiser_025")),
        ("lwnet", "lwnet", ("vessels", "artery_vein")),
        ("retina_unet", "retina_unet", ("build",)),
    ],
)
def test_published_networks_load_and_are_told_apart(
    folder: str, module: str, factories: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(SHARED / "models" / folder)])
    load = load_denoiser if folder == "dncnn" else load_segmenter
    made = [load(f"python:{module}:{name}", allow_code=True) for name in (*factories, *factories)]
    assert len({model.identity for model in made}) == len(factories)
    sys.modules.pop(module)
