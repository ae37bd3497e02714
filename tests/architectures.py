"""Encoders of every architecture that metatext is tested with: two layers of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

COMMON = {"vocab_size": 46, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT_LIKE = {**COMMON, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 66}
ARCHITECTURES = {
    "bert": (BERT_LIKE, 66),
    "roberta": ({**BERT_LIKE, "pad_token_id": 1}, 64),
    "xlm-roberta": ({**BERT_LIKE, "pad_token_id": 1}, 64),
    "deberta-v2": (
        {**BERT_LIKE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "type_vocab_size": 0},
        66,
    ),
    "modernbert": (
        {**BERT_LIKE, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
        66,
    ),
    "mpnet": ({**BERT_LIKE, "pad_token_id": 1}, 64),
    "distilbert": (
        {"vocab_size": 46, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 66},
        66,
    ),
    "t5": ({"vocab_size": 46, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}, 100),
}


def random_encoder(folder: Path, kind: str) -> int:
    """Put random weights of this architecture in place of those in a copy of the tiny encoder; the tokens that it can read."""
    from transformers import AutoConfig, AutoModel

    settings, limit = ARCHITECTURES[kind]
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "model_max_length": 100}), encoding="utf-8")
    return limit
