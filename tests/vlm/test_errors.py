"""Every way a model can fail to load ends in one clear sentence, and no file ever runs code."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from vlm_families import FAMILIES

from certimed.errors import CertimedError, InputError, MissingExtraError, ModelError
from certimed.vlm import load

pytest.importorskip("transformers")
pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, family in FAMILIES.items():
        folders[name] = tmp_path_factory.mktemp(name)
        family.write(folders[name])
    return folders


def edit(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """A change of one JSON file."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def drop_tensor(file: str, key: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = folder / file
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        del state[key]
        save_file(state, path, {"format": "pt"}) if path.suffix == ".safetensors" else torch.save(state, path)

    return apply


def vision_size(config: dict[str, Any]) -> None:
    config["vision_config"]["image_size"] = 64


BROKEN: list[tuple[str, Callable[[Path], None], type[CertimedError], str]] = [
    ("transformers", remove("config.json"), InputError, "no config.json"),
    ("transformers", write("config.json", "{"), InputError, "config.json is not valid JSON"),
    ("transformers", write("config.json", "[]"), InputError, "JSON list, not an object"),
    ("transformers", remove("preprocessor_config.json"), InputError, "no preprocessor_config.json"),
    ("transformers", edit("preprocessor_config.json", lambda c: c.pop("image_mean")), InputError, "image_mean"),
    ("transformers", edit("preprocessor_config.json", lambda c: c.update(resample=0)), InputError, "resample 0"),
    ("transformers", edit("preprocessor_config.json", lambda c: c.update(do_rescale=False)), InputError, "rescaled"),
    (
        "transformers",
        edit("preprocessor_config.json", lambda c: c.update(crop_size=31)),
        InputError,
        r"\(3, 31, 31\) but",
    ),
    ("transformers", remove("merges.txt"), InputError, "no tokenizer.*no merges.txt"),
    ("transformers", remove("merges.txt", "vocab.json"), InputError, "no vocab.json and no merges.txt"),
    ("transformers", write("vocab.json", "no json"), InputError, "tokenizer files in .* cannot be used"),
    (
        "transformers",
        edit("config.json", lambda c: c.update(model_type="bert")),
        InputError,
        "reads no prompts certimed knows.*'bert'",
    ),
    ("transformers", edit("config.json", vision_size), ModelError, r"position_embedding.*\(65, 32\)"),
    ("transformers", edit("config.json", lambda c: c["text_config"].update(vocab_size=9)), ModelError, r"\(9, 32\)"),
    ("transformers", remove("model.safetensors"), InputError, "holds no weights"),
    ("transformers", write("model.safetensors", "rubbish"), ModelError, "is no weights file"),
    ("transformers", drop_tensor("model.safetensors", "visual_projection.weight"), ModelError, r"1 missing \(visual"),
    ("open_clip", remove("open_clip_config.json"), InputError, "no open_clip_config.json"),
    ("open_clip", edit("open_clip_config.json", lambda c: c.pop("model_cfg")), InputError, "no model_cfg"),
    ("open_clip", remove("open_clip_pytorch_model.bin"), InputError, "holds no weights"),
    ("open_clip", write("open_clip_pytorch_model.bin", "rubbish"), ModelError, "open_clip_pytorch_model.bin"),
    ("open_clip", drop_tensor("open_clip_pytorch_model.bin", "logit_scale"), ModelError, "do not fit.*logit_scale"),
    ("open_clip", edit("open_clip_config.json", lambda c: c["preprocess_cfg"].update(size=31)), InputError, "31"),
    (
        "open_clip",
        edit("open_clip_config.json", lambda c: c["preprocess_cfg"].update(fill_color=9)),
        InputError,
        "fill",
    ),
    ("open_clip", edit("open_clip_config.json", lambda c: c["model_cfg"].update(nonsense=1)), InputError, "nonsense"),
    (
        "open_clip",
        edit("open_clip_config.json", lambda c: c["model_cfg"].update(multimodal_cfg={})),
        ModelError,
        "do not fit this CoCa",
    ),
    (
        "open_clip",
        edit("open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(pool_type="last")),
        InputError,
        "'last'",
    ),
    ("biomedclip", remove("vocab.txt", "tokenizer_config.json"), InputError, "no tokenizer files.*organisation/bert"),
    ("biomedclip", remove("config.json"), InputError, "organisation/bert"),
    ("medclip", remove("pytorch_model.bin"), InputError, "no pytorch_model.bin"),
    ("medclip", remove("bert/vocab.txt"), InputError, "no tokenizer"),
    ("medclip", drop_tensor("pytorch_model.bin", "logit_scale"), ModelError, "not a MedCLIP checkpoint"),
    (
        "medclip",
        drop_tensor("pytorch_model.bin", "text_model.model.embeddings.word_embeddings.weight"),
        ModelError,
        r"this BertModel.*1 missing \(embeddings.word",
    ),
    (
        "medclip",
        drop_tensor("pytorch_model.bin", "vision_model.projection_head.weight"),
        ModelError,
        r"neither vision_model\.projection_head\.weight \(Swin\) nor",
    ),
    (
        "medclip",
        edit("bert/config.json", lambda c: c.update(hidden_size=64)),
        ModelError,
        r"of another shape \(.* not \(64",
    ),
    ("medclip", edit("bert/config.json", lambda c: c.update(model_type="gpt2")), InputError, "'gpt2'"),
]


@pytest.mark.parametrize(("family", "damage", "kind", "part"), BROKEN)
def test_a_damaged_folder_is_one_sentence(
    originals: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    damage: Callable[[Path], None],
    kind: type[CertimedError],
    part: str,
) -> None:
    _cut_the_hub(monkeypatch)
    folder = tmp_path / "model"
    shutil.copytree(originals[family], folder)
    damage(folder)
    with pytest.raises(kind, match=part) as caught:
        load(f"{FAMILIES[family].spec}{folder}")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def _cut_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)


@pytest.mark.parametrize("spec", ["hf:vinid/plip", "open_clip:hf-hub:wisdomik/QuiltNet-B-32", "biomedclip"])
def test_an_unreachable_hub_is_one_sentence(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _cut_the_hub(monkeypatch)
    with pytest.raises(InputError, match=r"could it be fetched from the Hugging Face hub .*Name or service not known"):
        load(spec)


def test_a_hub_name_is_fetched_once_and_loaded_like_a_folder(
    originals: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(originals["transformers"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    vlm = load("hf:vinid/plip")
    assert vlm.name == "hf:vinid/plip"
    assert vlm.identity == load(f"hf:{originals['transformers']}").identity
    assert [name for name, _ in asked] == ["vinid/plip"] * 2
    assert not any("bin" in pattern for _, patterns in asked for pattern in patterns)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("nonsense", "hf:FOLDER_OR_ID.*medclip:FOLDER, demo, python:MODULE:FACTORY"),
        ("", "no known form"),
        ("hf:", "nothing after the colon"),
        ("/no/such/folder", "there is no folder or file /no/such/folder"),
        ("hf:/no/such/folder", "there is no folder"),
        ("open_clip:./no/such", "there is no folder"),
        ("medclip:nowhere", "there is no folder nowhere"),
    ],
)
def test_an_unusable_spec_names_the_forms_or_the_folder(spec: str, part: str) -> None:
    with pytest.raises(InputError, match=part):
        load(spec)


def test_a_bare_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither config.json nor open_clip_config.json"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="'gpt2'"):
        load(str(tmp_path))
    with pytest.raises(InputError, match="is a file"):
        load(f"hf:{tmp_path / 'config.json'}")


def test_an_unknown_device_is_refused(originals: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="'gpu'"):
        load(str(originals["transformers"]), device="gpu")


class Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    ("family", "safe", "file"),
    [
        ("transformers", "model.safetensors", "pytorch_model.bin"),
        ("open_clip", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin"),
        ("medclip", "pytorch_model.bin", "pytorch_model.bin"),
    ],
)
def test_a_weights_file_that_would_run_code_is_refused_unrun(
    originals: dict[str, Path], tmp_path: Path, family: str, safe: str, file: str
) -> None:
    folder, trace = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(originals[family], folder)
    (folder / safe).unlink()
    torch.save({"weight": Bomb(trace)}, folder / file)
    with pytest.raises(ModelError, match=r"weights|not opened"):
        load(f"{FAMILIES[family].spec}{folder}")
    assert not trace.exists()


@pytest.mark.parametrize(("family", "library"), [("transformers", "transformers"), ("open_clip", "open_clip")])
def test_a_missing_extra_names_the_pip_command(
    originals: dict[str, Path], monkeypatch: pytest.MonkeyPatch, family: str, library: str
) -> None:
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> ModuleType:
        if name.split(".", maxsplit=1)[0] == library:
            raise ImportError(f"No module named {library!r}")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'certimed\[vlm\]'"):
        load(f"{FAMILIES[family].spec}{originals[family]}")
