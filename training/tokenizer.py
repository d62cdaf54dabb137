"""A small byte-pair tokenizer in the standard files of CLIP's, learnt from a list of captions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END = "</w>"


def _byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]


def _words(captions: Iterable[str]) -> Counter[tuple[str, ...]]:
    """Lower-case ASCII words of the captions, each as its characters with the end mark on the last."""
    counts: Counter[tuple[str, ...]] = Counter()
    for caption in captions:
        spaced = "".join(char if char.isalnum() or char.isspace() else f" {char} " for char in caption.lower())
        for word in spaced.split():
            symbols = (*word[:-1], word[-1] + END)
            counts[symbols] += 1
    return counts


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def learn_merges(captions: Iterable[str], limit: int) -> list[tuple[str, str]]:
    """At most ``limit`` byte-pair merges, most frequent pair first; ties go to the alphabetically first pair."""
    words = _words(captions)
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            merged[_merge(word, best)] += count
        words = merged
    return merges


def write_tokenizer(captions: Iterable[str], folder: Path, *, merges: int = 400, context_length: int = 48) -> int:
    """Write vocab.json, merges.txt and the configuration files of a CLIP tokenizer; returns the vocabulary size.

    The begin and end tokens have the two highest ids, as in CLIP, so pooling at the highest id finds the end token.
    """
    learnt = learn_merges(captions, merges)
    alphabet = _byte_alphabet()
    symbols = [*alphabet, *(char + END for char in alphabet), *("".join(pair) for pair in learnt), BOS, EOS]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in learnt)]
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "do_lower_case": True,
        "model_max_length": context_length,
        **special,
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return len(symbols)
