"""MedCLIP (Wang et al., EMNLP 2022) from its published checkpoint, without its package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certimed.errors import InputError, ModelError, require
from certimed.models.fitting import fit, load_pretrained, refuse_misfit, unwrapped
from certimed.models.sources import read_json, resolve_folder
from certimed.models.weights import Weights, read_weights
from certimed.vlm.adapter import Adapter
from certimed.vlm.preprocessing import Preprocess
from certimed.vlm.protocol import Tokens
from certimed.vlm.tokenizers import has_tokenizer, load_tokenizer, special_ids, tokenizer_digest

BERT = "emilyalsentzer/Bio_ClinicalBERT"
WEIGHTS = "pytorch_model.bin"
IMAGE_SIZE = 224
# Grey mean and std of MedCLIP's training radiographs, as its code has them.
MEAN, STD = 0.5862785803043838, 0.27950088968644304
# Its code cuts texts at 77 tokens, and clamps the logarithm of the logit scale to this range before every use.
_CONTEXT = 77
_LOG_SCALE = (0.0, 4.6052)
_TEXT_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
_SWIN_KEYS = ("depths", "num_heads", "window_size", "patch_size", "hidden_act", "layer_norm_eps")
_ANCHORS = ("logit_scale", "text_model.projection_head.weight")
_ADVICE = "download the published archive again"


class MedCLIP(Adapter):
    """MedCLIP: a Swin or ResNet-50 vision tower and BioClinicalBERT, for grey radiographs.

    The certified space is the one-channel image that MedCLIP's own transform makes; the model repeats it to three
    channels. The text feature is the projection of the mean, over tokens, of hidden states 1, 2 and last. The published
    code averages over padding too, so there a text's feature changes with the other texts of its batch; here only real
    tokens count, which is what the published code computes for a text on its own.
    """

    libraries = ("transformers", "tokenizers", "torchvision")

    def __init__(self, name: str, folder: Path) -> None:
        """Load from a local folder.

        Args:
            name: how the user asked for the model.
            folder: the published ``pytorch_model.bin``; BioClinicalBERT's config.json and tokenizer files beside it or
                in a subfolder ``bert`` (else they are fetched from the hub); ``swin/config.json`` for a Swin other than
                the published ``swin-tiny-patch4-window7-224``.

        Raises:
            InputError: a file is missing or of another kind.
            ModelError: the weights do not fit or cannot be read safely.
        """
        transformers = require("transformers", "vlm")
        bert_folder = _bert_folder(folder)
        weights = read_weights(folder / WEIGHTS)
        state, beside, self.notes = unwrapped(weights, dict.fromkeys(_ANCHORS))
        weights = replace(weights, tensors=state | beside, notes=())
        swin = _swin_config(transformers, folder) if "vision_model.projection_head.weight" in state else None
        size = IMAGE_SIZE if swin is None else int(swin.image_size)
        super().__init__(name, _preprocessing(size))
        text, vision = _parts(weights, swin is not None)
        self.text_projection = _linear(state["text_model.projection_head.weight"])
        self.text_model: Any = _bert(transformers, bert_folder, text)
        self.vision_projection: nn.Linear | None = None
        if swin is None:
            self.vision_model: Any = _resnet(vision)
            self.embedding_dim = int(self.vision_model.fc.out_features)
        else:
            # The library maps the tensor names of its older versions, which the published file uses.
            self.vision_model, _ = load_pretrained(transformers.SwinModel, swin, vision, advice=_ADVICE)
            self.vision_projection = _linear(state["vision_model.projection_head.weight"])
            self.embedding_dim = self.vision_projection.out_features
        if self.text_projection.out_features != self.embedding_dim:
            raise ModelError(
                f"the weights in {folder} project images to {self.embedding_dim} dimensions and texts to "
                f"{self.text_projection.out_features} (projection_head.weight), which do not compare; {_ADVICE}"
            )
        self.logit_scale = math.exp(float(state["logit_scale"].float().clamp(*_LOG_SCALE)))
        self._load_text_settings(bert_folder, swin, state)

    def _load_text_settings(self, bert_folder: Path, swin: Any, state: Mapping[str, Tensor]) -> None:
        tokenizer = load_tokenizer(bert_folder, BERT)
        self._tokenizer = tokenizer
        self.bos_id, self.eos_id, self.pad_id = special_ids(tokenizer, bert_folder, "cls", "sep")
        config = self.text_model.config
        if len(tokenizer) > config.vocab_size:
            raise InputError(
                f"the tokenizer in {bert_folder} has {len(tokenizer)} tokens but the weights only {config.vocab_size}; "
                f"use the tokenizer files of {BERT}"
            )
        self.token_dim = int(config.hidden_size)
        self.context_length = min(_CONTEXT, int(config.max_position_embeddings))
        configuration = {
            "family": "medclip",
            "vision": "resnet50" if swin is None else {key: getattr(swin, key) for key in _SWIN_KEYS},
            "text": {key: getattr(config, key) for key in _TEXT_KEYS},
            "special": (self.bos_id, self.eos_id),
            "vocabulary": tokenizer_digest(tokenizer.get_vocab(), self.content_ids),
        }
        # The file's own names: the libraries rename the towers' tensors between versions.
        self.freeze(configuration, state)

    def image_features(self, x: Tensor) -> Tensor:
        """Repeat to three channels, vision tower, projection."""
        x = x.expand(-1, 3, -1, -1)
        if self.vision_projection is None:
            features: Tensor = self.vision_model(x)
        else:
            features = self.vision_projection(self.vision_model(pixel_values=x).pooler_output)
        return features

    def content_ids(self, text: str) -> list[int]:
        """See the protocol."""
        return [int(i) for i in self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]

    def token_embeddings(self, ids: Tensor) -> Tensor:
        """See the protocol; BERT's word embeddings, before positions, token types and normalisation."""
        embeddings: Tensor = self.text_model.get_input_embeddings()(ids)
        return embeddings

    def text_features(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        """Mean of hidden states 1, 2 and last over the real tokens, then projection."""
        output = self.text_model(inputs_embeds=embeddings, attention_mask=tokens.mask.long(), output_hidden_states=True)
        states = output.hidden_states
        hidden = (states[1] + states[2] + states[-1]) / 3
        weights = tokens.mask.to(hidden.dtype)[..., None]
        features: Tensor = self.text_projection((hidden * weights).sum(dim=1) / weights.sum(dim=1))
        return features


def load_medclip(reference: str, name: str) -> MedCLIP:
    """MedCLIP from a local folder.

    Raises:
        InputError: there is no such folder, or a file in it is missing or of another kind.
        ModelError: the weights do not fit or cannot be read safely.
        MissingExtraError: transformers or torchvision is not installed.
    """
    folder = Path(reference).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {reference}; MedCLIP is loaded from a local folder, the unpacked archive that its "
            "authors publish"
        )
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"the folder {folder} has no {WEIGHTS}; give the unpacked MedCLIP archive")
    return MedCLIP(name, folder)


def _preprocessing(size: int) -> Preprocess:
    """Pad to a black square, resize to the input size, grey mean and std."""
    return Preprocess(size=(size, size), mean=(MEAN,), std=(STD,), resize="exact", channels=1, square=size)


def _bert_folder(folder: Path) -> Path:
    for candidate in (folder / "bert", folder):
        if (candidate / "config.json").is_file():
            if not has_tokenizer(candidate):
                raise InputError(f"{candidate} has BERT's config.json but no tokenizer; add vocab.txt of {BERT}")
            return candidate
    try:
        return resolve_folder(BERT, ())
    except InputError as error:
        raise InputError(
            f"{folder} has no BERT configuration and {BERT} cannot be fetched from the hub; copy its config.json and "
            f"vocab.txt into {folder / 'bert'}"
        ) from error


def _swin_config(transformers: Any, folder: Path) -> Any:
    """The published Swin (tiny, patch 4, window 7, 224 pixels: the library's defaults) or the folder's own."""
    path = folder / "swin" / "config.json"
    if not path.is_file():
        return transformers.SwinConfig()
    return transformers.SwinConfig.from_dict(read_json(path, "the vision tower's configuration"))


def _parts(weights: Weights, projected: bool) -> tuple[Weights, Weights]:
    """The tensors of the text and of the vision tower, as the libraries name them: MedCLIP keeps them in ``model``."""
    heads = {"text_model.projection_head.weight", "logit_scale"}
    heads |= {"vision_model.projection_head.weight"} if projected else set()
    absent = sorted(heads - set(weights.tensors))
    towers: dict[str, dict[str, Tensor]] = {"text_model.model.": {}, "vision_model.model.": {}}
    unknown = []
    for name, value in weights.tensors.items():
        tower = next((start for start in towers if name.startswith(start)), None)
        if tower is not None:
            towers[tower][name.removeprefix(tower)] = value.float() if value.is_floating_point() else value
        elif name not in heads:
            unknown.append(name)
    if absent or not all(towers.values()):
        lacks = absent or [f"{start}*" for start, tensors in towers.items() if not tensors]
        raise ModelError(f"{weights.source} is not a MedCLIP checkpoint: it lacks {', '.join(lacks)}; {_ADVICE}")
    refuse_misfit(weights.source, "MedCLIP", (), unknown, {}, _ADVICE)
    text, vision = (replace(weights, tensors=tensors) for tensors in towers.values())
    return text, vision


def _linear(weight: Tensor) -> nn.Linear:
    rows, columns = weight.shape
    # Built empty: initialising would draw from the global random generator.
    layer = nn.Linear(columns, rows, bias=False, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def _bert(transformers: Any, bert_folder: Path, weights: Weights) -> Any:
    config = read_json(bert_folder / "config.json", "the configuration of MedCLIP's BERT")
    if config.get("model_type", "bert") != "bert":
        raise InputError(
            f"{bert_folder / 'config.json'} describes a model of type {config['model_type']!r}, but MedCLIP's text "
            f"tower is a BERT; use the config.json of {BERT}"
        )
    settings = transformers.BertConfig.from_dict(config)
    model, _ = load_pretrained(transformers.BertModel, settings, weights, advice=f"use the config.json of {BERT}")
    return model


def _resnet(weights: Weights) -> Any:
    models = require("torchvision.models", "vlm")
    head = weights.tensors.get("fc.weight")
    if head is None:
        raise ModelError(
            f"{weights.source} has neither vision_model.projection_head.weight (Swin) nor vision_model.model.fc.weight "
            f"(ResNet-50), so its vision tower is unknown; {_ADVICE}"
        )
    with torch.random.fork_rng(devices=[]):
        model = models.resnet50(weights=None)
        model.fc = nn.Linear(2048, len(head), bias=False)
    fit(model, weights, advice=_ADVICE)
    return model
