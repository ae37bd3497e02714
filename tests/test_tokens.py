"""Tokens: padded batches of a flat array equal what a tokenizer pads by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from letters import token_lists

from metatext.tokens import Tokens

ROWS = [[5, 6, 7], [], [8], [9, 10, 11, 12]]
SEGMENTS = [[0, 0, 1], [], [0], [0, 1, 1, 1]]


@pytest.fixture
def tokens() -> Tokens:
    return Tokens.from_lists(ROWS, SEGMENTS, filler=3)


def test_padding_by_hand(tokens):
    ids, mask, segments = tokens.padded([3, 0, 1])
    assert ids.tolist() == [[9, 10, 11, 12], [5, 6, 7, 3], [3, 3, 3, 3]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert segments.tolist() == [[0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert {part.dtype for part in (ids, mask, segments)} == {torch.int64}


def test_without_segments_all_is_the_first():
    assert not Tokens.from_lists(ROWS, None, filler=0).padded(range(4))[2].any()


def test_selection_and_concatenation(tokens):
    assert token_lists(tokens) == ROWS
    chosen = tokens[np.array([3, 1, 3, 0])]
    assert token_lists(chosen) == [ROWS[i] for i in (3, 1, 3, 0)]
    assert chosen.second.tolist() == [1, 0, 1, 2]
    joined = Tokens.concatenate([chosen, tokens[:0], tokens])
    assert token_lists(joined) == [*token_lists(chosen), *ROWS]
    assert joined.second.tolist() == [*chosen.second, *tokens.second]
    assert joined.filler == 3


def test_batches_keep_to_the_budget():
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    tokens = Tokens.from_lists([[1] * n for n in lengths], None, 0)
    for budget in (16, 64, 1000):
        batches = list(tokens.batches(budget))
        assert sorted(np.concatenate(batches)) == list(range(500))
        for rows in batches:
            assert len(rows) * lengths[rows].max() <= budget or len(rows) == 1
        if budget == 1000:
            assert len(batches) < 1.2 * lengths.sum() / budget + 1  # and little is padding
    assert list(tokens[:0].batches(16)) == []
