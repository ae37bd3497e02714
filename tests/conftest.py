"""Shared fixtures: a tiny random encoder for speed, the embedded one where realism counts, private caches everywhere."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may ask the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # values are compared with a CPU's, bit for bit where they must be equal

import pytest
from hub_clients import client, hub, pushed  # noqa: F401

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"needs the corpora in {SHARED}"))


@pytest.fixture(autouse=True, scope="session")
def interrupts():
    """A job in the background of a shell ignores Ctrl-C, and so would all that it starts; tests send that signal."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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


def _byte_tokenizer(folder):
    """A token for each byte, so that none is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>").save_pretrained(folder)
    return len(words)


@pytest.fixture(scope="session")
def tiny_writer_folder(tmp_path_factory):
    """A two-layer Llama with random weights that reads bytes, saved as a local folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny writer")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=_byte_tokenizer(folder), **shape, eos_token_id=1, pad_token_id=0, bos_token_id=1)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_t5_folder(tmp_path_factory):
    """The same of a T5, encoder and decoder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("tiny t5")
    torch.manual_seed(0)
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(vocab_size=_byte_tokenizer(folder), **shape, eos_token_id=1)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_writer(tiny_writer_folder):
    """The tiny causal language model, loaded once."""
    from metatext import LanguageConfig, LanguageModel

    return LanguageModel.load(LanguageConfig(str(tiny_writer_folder), prompt_length=3))


@pytest.fixture(scope="session")
def tiny_t5(tiny_t5_folder):
    """The tiny sequence-to-sequence model, loaded once."""
    from metatext import LanguageConfig, LanguageModel

    return LanguageModel.load(LanguageConfig(str(tiny_t5_folder), prompt_length=3))
