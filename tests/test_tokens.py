"""Tokens: padded batches of a flat array equal what a tokenizer pads by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from letters import token_lists

from metatext.tokens import Tokens, batches

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
        parts = list(tokens.batches(budget))
        assert sorted(np.concatenate(parts)) == list(range(500))
        for rows in parts:
            assert len(rows) * lengths[rows].max() <= budget or len(rows) == 1
        if budget == 1000:
            assert len(parts) < 1.3 * lengths.sum() / budget + 1  # and little is padding
    assert list(tokens[:0].batches(16)) == []


def test_batches_waste_little():
    """Hand computed: a batch costs 8 of 64 tokens, so a long row pays for a batch of its own, and a little longer one does not."""
    assert [rows.tolist() for rows in batches(np.array([3, 20, 3, 3]), 64)] == [[1], [0, 2, 3]]
    assert [rows.tolist() for rows in batches(np.array([3, 5, 3, 3]), 64)] == [[1, 0, 2, 3]]
    assert [rows.tolist() for rows in batches(np.array([9, 0, 9]), 8)] == [
        [0],
        [2],
        [1],
    ]  # a row alone may be longer than the budget


@pytest.mark.parametrize("seed", range(4))
def test_no_cut_of_the_rows_costs_less(seed):
    """Against all ways to cut 9 sorted rows into batches."""
    lengths, budget = 1 + np.random.default_rng(seed).permutation(29)[:9], 48
    longest_first = np.sort(lengths)[::-1]

    def cost(parts) -> float:
        return sum(len(part) * max(part) + budget / 8 for part in parts)

    costs = []
    for cuts in itertools.product([False, True], repeat=8):
        parts = np.split(longest_first, 1 + np.flatnonzero(cuts))
        if all(len(part) * max(part) <= budget for part in parts):
            costs.append(cost(parts))
    assert cost([lengths[rows] for rows in batches(lengths, budget)]) == min(costs)
