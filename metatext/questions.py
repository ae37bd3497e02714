"""The questions of one task: its examples as a support, and the answers of an adapted head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .encoder import Encoder
from .episodes import EpisodeBatch
from .representation import Support
from .spans import SpanFeatures, read_states
from .windows import NONE, Spans, decode, locate, read_windows

if TYPE_CHECKING:
    from .heads import Head
    from .heads.protocol import Params

CHUNK = 64  # windows read and scored at a time


def read_examples(encoder: Encoder, rows: Sequence[Mapping], spans: np.ndarray, description: str | None) -> Support:
    """The examples of one task as a batch of one `Support`.

    Args:
        encoder: frozen.
        rows: n dicts of ``question`` and ``context``.
        spans: (n, 2) characters of the answers, see `targets.encode_answers`.
        description: of the task, or None.
    """
    windows = read_windows(encoder, [row["question"] for row in rows], [row["context"] for row in rows])
    labels, shown = locate(windows, spans)
    prompts = encoder.tokenize([description or "."])
    none, n = np.zeros(0, np.int64), len(rows)
    source = SpanFeatures((), None, None, windows, windows.ranges(n), labels, shown, none, prompts)
    numbers = np.zeros((1, 0), np.int64)
    batch = EpisodeBatch(
        task=np.zeros(1, np.int64),
        classes=numbers,
        support=np.arange(n)[None],
        support_y=np.zeros((1, n), np.int64),
        query=numbers,
        query_y=numbers,
        outside=numbers.astype(bool),
        named=numbers.astype(bool),
        name=numbers,
        style=np.zeros(1, np.int64),
        described=np.array([bool(description)]),
    )
    support, query, _ = source.windows_of(batch, every=False)
    states = read_states(source, encoder, batch, support, query)
    return source.assemble(batch, states, "cpu", every=False).support


@torch.no_grad()
def answer_questions(
    encoder: Encoder, head: Head, params: Params, rows: Sequence[Mapping], n: int = 1, progress: bool = False
) -> Spans:
    """The n-best answers of an adapted head to questions, from all windows of their contexts.

    Args:
        encoder: frozen.
        head, params: the head and the task's parameters.
        rows: dicts of ``question`` and ``context``.
        n: answers per question.
        progress: show a bar where it takes longer than five seconds.
    """
    from tqdm.auto import tqdm

    windows = read_windows(encoder, [row["question"] for row in rows], [row["context"] for row in rows])
    lengths, like = windows.tokens.lengths, next(head.parameters())
    values = np.zeros((len(windows), int(lengths.max(initial=1)), 3), np.float32)
    order = np.argsort(-lengths, kind="stable")  # windows of like length go together
    bar = tqdm(total=len(order), desc="reading contexts", unit="window", delay=5, disable=None if progress else True)
    for at in range(0, len(order), CHUNK):
        own = np.sort(order[at : at + CHUNK])
        place = windows.places(own)
        tokens = windows.tokens[own]
        flat = encoder.learn(tokens, pooled=False).to(like)
        mask = (place >= 0) & (windows.begin[place] >= 0)
        mask[:, NONE] = True
        local = np.where(place >= 0, place - windows.tokens.start[own][:, None] + tokens.start[:-1, None], 0)
        x = flat[torch.from_numpy(local).to(flat.device)]
        with torch.autocast(x.device.type, enabled=False):
            found = head.logits(params, x[None], torch.from_numpy(mask).to(x.device)[None]).values[0]
        values[own, : found.shape[1]] = found.float().cpu().numpy()
        bar.update(len(own))
    bar.close()
    return decode(values, windows, np.arange(len(windows)), windows.row, len(rows), n)


def n_best(encoder: Encoder, head: Head, params: Params, rows: Sequence[Mapping], n: int) -> list[list[dict[str, Any]]]:
    """The n-best answers to each question as dicts of ``text``, ``start``, ``end`` and ``score``, best first; whether there is any is not
    judged. Fewer where a context has no more. Arguments as of `answer_questions`."""
    found = answer_questions(encoder, head, params, rows, n)
    spans = zip(rows, found.begin, found.end, found.score, strict=True)
    return [[_answer(row["context"], *one) for one in zip(*places) if one[2] > 0] for row, *places in spans]


def best_or_none(
    encoder: Encoder, head: Head, params: Params, rows: Sequence[Mapping], progress: bool = False
) -> list[dict[str, Any]]:
    """The best answer to each question, as of `n_best`; where that there is none is likelier, the text "" and the probability of this."""
    found = answer_questions(encoder, head, params, rows, progress=progress)
    spans = zip(rows, found.begin[:, 0], found.end[:, 0], found.score[:, 0], strict=True)
    return [
        _answer(row["context"], *place) if above > 0 else {"text": "", "start": 0, "end": 0, "score": float(none)}
        for (row, *place), above, none in zip(spans, found.answered, found.none, strict=True)
    ]


def _answer(context: str, begin: int, end: int, score: float) -> dict[str, Any]:
    """An answer as a caller gets it, without blanks at its ends."""
    text = context[begin:end]
    begin = int(begin) + len(text) - len(text.lstrip())
    return {"text": text.strip(), "start": begin, "end": begin + len(text.strip()), "score": float(score)}
