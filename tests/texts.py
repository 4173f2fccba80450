"""A tiny encoder with random weights and small files of texts: nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

GOOD, BAD = ("good", "great", "fine", "lovely"), ("bad", "poor", "dull", "awful")
FILLER = tuple(f"word{i}" for i in range(20))


def tiny_encoder(folder: Path, *, layers: int = 3) -> str:
    """Write a BERT of width 16 and the tokenizer of the words above into `folder`; return its path."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(("[PAD]", "[UNK]", *GOOD, *BAD, *FILLER))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return str(folder)


def sentence(chance: np.random.Generator, label: int) -> str:
    """Return some words, one of them of the kind that `label` says."""
    words = [str(chance.choice(FILLER)) for _ in range(int(chance.integers(2, 6)))]
    words.insert(int(chance.integers(0, len(words) + 1)), str(chance.choice(GOOD if label else BAD)))
    return " ".join(words)


def write_reviews(path: Path, count: int, *, seed: int = 0) -> str:
    """Write `count` labelled sentences as label, text; every other one is good."""
    chance = np.random.default_rng(seed)
    rows = [f"{i % 2}\t{sentence(chance, i % 2)}" for i in range(count)]
    path.write_text("\n".join(["label\ttext", *rows]) + "\n")
    return str(path)


def write_given(path: Path, count: int, *, seed: int = 9) -> str:
    """Write `count` sentences of others below the key sst2: label, sentence."""
    chance = np.random.default_rng(seed)
    said = [f"{sentence(chance, i % 2)} new{i} odd{i} own{i}" for i in range(count)]  # no versions of one
    records = [{"sentence": text, "label": i % 2} for i, text in enumerate(said)]
    path.write_text(json.dumps({"sst2": records, "rte": []}))
    return str(path)


def write_pairs(path: Path, count: int, *, seed: int = 0) -> str:
    """Write `count` labelled pairs of sentences as label, sentence1, sentence2; every other one of one kind."""
    chance = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        kind = int(chance.integers(0, 2))
        first, second = (sentence(chance, kind if i % 2 else side) for side in (0, 1))
        rows.append(f"{i % 2}\t{first}\t{second}")
    path.write_text("\n".join(["label\tsentence1\tsentence2", *rows]) + "\n")
    return str(path)
