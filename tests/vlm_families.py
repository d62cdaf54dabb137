"""Tiny random models of every supported family, written to disk in the family's own published format."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CORPUS = ["An H&E image patch of adipose tissue.", "a histopathology slide showing melanoma", "normal lung opacity"]
TEXTS = ["An H&E image patch of adipose tissue.", "melanoma", "a chest x-ray with lung opacity"]
BERT_WORDS = "a an image patch of h e & adipose tissue melanoma chest x - ray with lung opacity . photo brain normal"


@dataclass
class Family:
    """One row of the table that drives the tests.

    Attributes:
        spec: prefix of the spec that loads it.
        write: puts the model into a folder and returns what the source library computes with it.
        context: the largest number of tokens of one text.
        channels: of the certified space.
        dim: of the joint space.
        begins: whether a text has a begin token.
    """

    spec: str
    write: Callable[[Path], Reference]
    context: int
    channels: int = 3
    dim: int = 24
    begins: bool = True


@dataclass
class Reference:
    """What the source library computes, by its own code on its own tokens.

    Attributes:
        images: certified space ``(B, C, H, W)`` -> features.
        texts: strings -> features.
        pil: a Pillow image -> what the library's own 8-bit transform makes of it, mean and std undone.
    """

    images: Callable[[Tensor], Tensor]
    texts: Callable[[list[str]], Tensor]
    pil: Callable[[Any], Tensor]


def write_clip_tokenizer(folder: Path) -> int:
    """A byte-level BPE with end-of-word marks, in CLIP's two files. Returns the vocabulary size."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    learnt = tokenizer.get_vocab()
    words_by_id = sorted(learnt, key=lambda word: learnt[word])
    words_by_id += [f"{letter}</w>" for letter in sorted(letters) if f"{letter}</w>" not in learnt]
    words_by_id += ["<|startoftext|>", "<|endoftext|>"]
    merges = [" ".join(m) if isinstance(m, list) else m for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words_by_id)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return len(words_by_id)


def write_bert_tokenizer(folder: Path) -> int:
    """A WordPiece vocabulary in BERT's file. Returns its size."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *BERT_WORDS.split(), *"bcdfgijklmnopqrstuvwyz"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = list(dict.fromkeys(words))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(words)


def _pooled(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


def write_transformers_clip(folder: Path, image_size: int = 32) -> Reference:
    """A transformers CLIPModel with tokenizer and image processor."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    size = write_clip_tokenizer(folder)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    config = CLIPConfig(
        text_config={**tower, **text, "max_position_embeddings": 77},
        vision_config={**tower, "image_size": image_size, "patch_size": 8},
        projection_dim=24,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    processor = CLIPImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    processor.save_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)

    def texts(batch: list[str]) -> Tensor:
        tokens = tokenizer(batch, padding="max_length", max_length=77, return_tensors="pt")
        return _pooled(model.get_text_features(**tokens))

    mean = torch.tensor(processor.image_mean).view(3, 1, 1)
    std = torch.tensor(processor.image_std).view(3, 1, 1)
    return Reference(
        images=lambda x: _pooled(model.get_image_features(pixel_values=(x - mean) / std)),
        texts=texts,
        pil=lambda image: processor(image, return_tensors="pt")["pixel_values"][0] * std + mean,
    )


def _write_open_clip(folder: Path, model_config: dict[str, Any], binary: bool) -> Reference:
    import open_clip
    from open_clip.transform import image_transform
    from safetensors.torch import save_file

    torch.manual_seed(0)
    text_config = model_config["text_cfg"]
    custom = "hf_model_name" in text_config
    local = {"hf_model_name": str(folder), "hf_model_pretrained": False} if custom else {}
    built = dict(model_config, text_cfg={**text_config, **local})
    model = (open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP)(**built).eval()
    constants = open_clip.constants
    mean, std = constants.OPENAI_DATASET_MEAN, constants.OPENAI_DATASET_STD
    preprocess = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    if binary:
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(state, folder / "open_clip_model.safetensors")
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    transform = image_transform(32, is_train=False, mean=mean, std=std)

    def texts(batch: list[str]) -> Tensor:
        if not custom:
            return model.encode_text(open_clip.SimpleTokenizer()(batch))
        from transformers import BertTokenizer

        tokens = BertTokenizer.from_pretrained(folder)(batch, padding="max_length", max_length=40, return_tensors="pt")
        return model.encode_text(tokens["input_ids"])

    return Reference(
        images=lambda x: model.encode_image((x - shift) / scale),
        texts=texts,
        pil=lambda image: transform(image) * scale + shift,
    )


def write_open_clip(folder: Path) -> Reference:
    """An open_clip CLIP with its bundled tokenizer, the format of QuiltNet."""
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    return _write_open_clip(folder, {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}, binary=True)


def write_biomedclip(folder: Path) -> Reference:
    """An open_clip model with a BERT text tower, the format of BiomedCLIP."""
    from transformers import BertConfig

    size = write_bert_tokenizer(folder)
    BertConfig(**_bert_sizes(size)).save_pretrained(folder)
    timm = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"}
    vision = {"image_size": 32, **timm}
    text = {
        "hf_model_name": "organisation/bert",
        "hf_tokenizer_name": "organisation/bert",
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 256,
    }
    return _write_open_clip(folder, {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}, binary=False)


def _bert_sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 300,
    }


# Tensor names of Swin in transformers 4, which the published checkpoint uses; transformers 5 renamed them.
OLD_SWIN_NAMES = {
    "attention.q_proj": "attention.self.query",
    "attention.k_proj": "attention.self.key",
    "attention.v_proj": "attention.self.value",
    "attention.o_proj": "attention.output.dense",
    "attention.relative_position_bias.relative_position_bias_table": "attention.self.relative_position_bias_table",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _published_name(name: str) -> str:
    for new, old in OLD_SWIN_NAMES.items():
        name = name.replace(new, old)
    return name


def write_medclip(folder: Path, resnet: bool = False) -> Reference:
    """MedCLIP's checkpoint: vision_model, text_model and logit_scale in one state dict, written with torch.save."""
    from transformers import BertConfig, BertModel, BertTokenizer, SwinConfig, SwinModel

    bert_folder = folder / "bert"
    bert_folder.mkdir()
    size = write_bert_tokenizer(bert_folder)
    torch.manual_seed(0)
    bert = BertModel(BertConfig(**_bert_sizes(size))).eval()
    bert.config.save_pretrained(bert_folder)
    text_head = torch.nn.Linear(32, 24, bias=False)
    state = {f"text_model.model.{key}": value for key, value in bert.state_dict().items()}
    state["text_model.model.embeddings.position_ids"] = torch.arange(300)[None]
    state["text_model.projection_head.weight"] = text_head.weight.detach()
    state["logit_scale"] = torch.tensor(5.0)
    if resnet:
        from torchvision.models import resnet50

        vision: Any = resnet50(weights=None)
        vision.fc = torch.nn.Linear(2048, 24, bias=False)
        vision.eval()
        images = vision
        state |= {f"vision_model.model.{key}": value for key, value in vision.state_dict().items()}
    else:
        config = SwinConfig(
            image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, mlp_ratio=2.0
        )
        (folder / "swin").mkdir()
        config.save_pretrained(folder / "swin")
        vision, vision_head = SwinModel(config).eval(), torch.nn.Linear(16, 24, bias=False)
        state |= {f"vision_model.model.{_published_name(key)}": value for key, value in vision.state_dict().items()}
        state["vision_model.projection_head.weight"] = vision_head.weight.detach()

        def images(x: Tensor) -> Tensor:
            return vision_head(vision(x).pooler_output)

    torch.save(state, folder / "pytorch_model.bin")
    tokenizer = BertTokenizer.from_pretrained(bert_folder)

    def texts(batch: list[str]) -> Tensor:
        # One text at a time: the published mean runs over padding as well, so only then is it well defined.
        rows = []
        for text in batch:
            states = bert(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            stacked = torch.stack([states[1], states[2], states[-1]])
            rows.append(text_head(stacked.permute(1, 0, 2, 3).mean(2).mean(1)))
        return torch.cat(rows)

    def normalised(x: Tensor) -> Tensor:
        return images(((x - 0.5862785803043838) / 0.27950088968644304).repeat(1, 3, 1, 1))

    return Reference(images=normalised, texts=texts, pil=lambda image: _medclip_pil(image, 224 if resnet else 32))


def _medclip_pil(image: Any, size: int) -> Tensor:
    """MedCLIP's own preparation with Pillow: paste on a black square in grey, resize bicubic."""
    import numpy as np
    from PIL import Image

    width, height = image.size
    edge = max(size, width, height)
    square = Image.new("L", (edge, edge), 0)
    square.paste(image, (int((edge - width) / 2), int((edge - height) / 2)))
    grey = square.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(grey, dtype=np.float32) / 255)[None]


def write_coca(folder: Path) -> Reference:
    """An open_clip CoCa: attentional pooling of images, a class token behind the text, a captioning decoder."""
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "output_tokens": True}
    vision |= {"attentional_pool": True, "attn_pooler_heads": 4}
    text = {"context_length": 76, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2, "embed_cls": True}
    decoder = {"context_length": 76, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1, "attn_pooler_heads": 4}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, "output_tokens": True}}
    config |= {"multimodal_cfg": decoder, "custom_text": True}
    torch.manual_seed(0)
    model = open_clip.coca_model.CoCa(**{key: value for key, value in config.items() if key != "custom_text"}).eval()
    for value in model.text_decoder.parameters():  # the library leaves some as memory was
        torch.nn.init.normal_(value, std=0.02)
    constants = open_clip.constants
    mean, std = constants.OPENAI_DATASET_MEAN, constants.OPENAI_DATASET_STD
    preprocess = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    transform = open_clip.transform.image_transform(32, is_train=False, mean=mean, std=std)
    tokenizer = open_clip.SimpleTokenizer(context_length=76)
    return Reference(
        images=lambda x: model.encode_image((x - shift) / scale, normalize=False),
        texts=lambda batch: model.encode_text(tokenizer(batch), normalize=False),
        pil=lambda image: transform(image) * scale + shift,
    )


def write_siglip(folder: Path) -> Reference:
    """A transformers SiglipModel with a SentencePiece tokenizer and its image processor."""
    import sentencepiece
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipTokenizer

    (folder / "corpus.txt").write_text("\n".join([*CORPUS, *TEXTS]).lower())
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "spiece"), vocab_size=70, minloglevel=2,
        pad_id=-1, bos_id=-1, eos_id=1, unk_id=2, hard_vocab_limit=False, eos_piece="</s>", unk_piece="<unk>",
    )  # fmt: skip
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    return _siglip(folder, tokenizer, SiglipConfig, SiglipModel, SiglipImageProcessor)


def write_siglip2(folder: Path) -> Reference:
    """As published for fixed resolutions: a SiglipModel with Gemma's kind of tokenizer, no begin token and an end."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

    words = ["<pad>", "<eos>", "<unk>", *dict.fromkeys(BERT_WORDS.split())]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=64
    )
    tokenizer.save_pretrained(folder)
    return _siglip(folder, tokenizer, SiglipConfig, SiglipModel, SiglipImageProcessor)


def _siglip(folder: Path, tokenizer: Any, config_kind: Any, model_kind: Any, processor_kind: Any) -> Reference:
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**tower, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    config = config_kind(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8})
    torch.manual_seed(0)
    model = model_kind(config).eval()
    model.logit_scale.data.fill_(2.3)
    model.save_pretrained(folder)
    processor = processor_kind(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)

    def texts(batch: list[str]) -> Tensor:
        tokens = tokenizer(batch, padding="max_length", max_length=64, return_tensors="pt")
        return _pooled(model.get_text_features(input_ids=tokens["input_ids"]))

    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (processor.image_mean, processor.image_std))
    return Reference(
        images=lambda x: _pooled(model.get_image_features(pixel_values=(x - mean) / std)),
        texts=texts,
        pil=lambda image: processor(image, return_tensors="pt")["pixel_values"][0] * std + mean,
    )


FAMILIES = {
    "transformers": Family("hf:", write_transformers_clip, context=77),
    "open_clip": Family("open_clip:", write_open_clip, context=77),
    "biomedclip": Family("biomedclip:", write_biomedclip, context=256),
    "coca": Family("open_clip:", write_coca, context=76, dim=16),
    "siglip": Family("hf:", write_siglip, context=65, dim=32, begins=False),
    "siglip2": Family("hf:", write_siglip2, context=65, dim=32, begins=False),
    "medclip": Family("medclip:", write_medclip, context=77, channels=1),
}
