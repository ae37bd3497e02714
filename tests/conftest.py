"""Shared fixtures: a tiny random encoder for speed, the embedded one where realism counts, private caches everywhere."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may ask the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hub_clients import client, hub, pushed  # noqa: F401

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"needs the corpora in {SHARED}"))


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """Features of a test stay in the test."""
    monkeypatch.setenv("METATEXT_CACHE", str(tmp_path / "features"))


@pytest.fixture(scope="session")
def embedded():
    """The real encoder, loaded once."""
    from metatext import Encoder

    return Encoder.load("embedded")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A two-layer BERT with random weights and a word-level tokenizer, saved as a local folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    """The tiny encoder, loaded once."""
    from metatext import Encoder

    return Encoder.load(str(tiny_folder))
