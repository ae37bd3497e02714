"""What the model of one task answers to rows, kind by kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .features import encode_inputs
from .heads import Logits
from .heads.protocol import CELLS
from .kinds import KINDS
from .questions import best_or_none, n_best
from .residual import corrected
from .rows import DataError, check_inputs, check_questions, check_whole

if TYPE_CHECKING:
    from .adapted import AdaptedModel

CHUNK = 4096  # rows encoded and predicted at a time
WRITTEN = 64  # rows that a language model answers at a time


def answer_table(
    model: AdaptedModel, inputs: Sequence, max_risk: float | None, max_new_tokens: int, progress: bool
) -> dict[str, Any]:
    """`AdaptedModel.predict_table`, for a ``max_risk`` that is checked."""
    kind = KINDS[model.kind]
    if kind.name == "span":
        return _spans(model, check_questions(inputs), progress)
    if kind.written:
        return {"text": _written(model, inputs, max_new_tokens, progress)}
    answers, known = answer_rows(model, inputs, progress)
    if kind.scored:
        scores = model.scale[0] + model.scale[1] * answers[:, 0].astype(np.float64)
        return {"score": scores.clip(*model.labels) if model.labels else scores}
    if not kind.by_class:
        found = [np.flatnonzero(row >= model.threshold) for row in answers]
        return {
            "label": [[model.labels[c] for c in own] for own in found],
            "probability": [row[own].tolist() for row, own in zip(answers, found, strict=True)],
        }
    risk = risk_of(model, answers, known)
    labels = [model.labels[c] for c in answers.argmax(1)]
    if max_risk is not None:
        labels = [None if r > max_risk else label for label, r in zip(labels, risk, strict=True)]
    return {"label": labels, "probability": answers.max(1, initial=0), "confidence": known, "risk": risk}


@torch.no_grad()
def answer_rows(model: AdaptedModel, inputs: Sequence, progress: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """`Kind.answer` of n texts or pairs, (n, w), and the probability that each belongs to any of the labels, (n,)."""
    rows = model.check_rows(inputs)
    support, ways = model.support.y.shape[1:3]
    size = max(1, min(CHUNK, CELLS // (support + 8 * ways)))
    answers, known = np.empty((len(rows), ways), np.float32), np.empty(len(rows), np.float32)
    for i in _chunks(len(rows), size, progress):
        part = _logits(model, rows[i : i + size], progress and len(rows) <= size)
        answers[i : i + size] = KINDS[model.kind].answer(part.values[0]).float().cpu()
        known[i : i + size] = (-part.none[0]).sigmoid().float().cpu()
    return answers, known


def risk_of(model: AdaptedModel, probabilities: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n,) `AdaptedModel.risk` of the rows of which `answer_rows` said so."""
    score = 1 - probabilities.max(1, initial=0) * known
    return score if model.risk_curve is None else model.risk_curve(score)


def best_answers(model: AdaptedModel, rows: list[dict], n: int) -> list[list[dict[str, Any]]]:
    """`AdaptedModel.answers`: the n best to each question."""
    best = []
    for at in range(0, len(rows), CHUNK):
        best += n_best(model.encoder, model.head, model.params, rows[at : at + CHUNK], n)
    return best


def _spans(model: AdaptedModel, rows: list[dict], progress: bool) -> dict[str, list]:
    best: list[dict] = []
    for at in _chunks(len(rows), CHUNK, progress):
        alone = progress and len(rows) <= CHUNK
        best += best_or_none(model.encoder, model.head, model.params, rows[at : at + CHUNK], progress=alone)
    return {name: [answer[name] for answer in best] for name in ("text", "start", "end", "score")}


def _written(model: AdaptedModel, inputs: Sequence[str], max_new_tokens: int, progress: bool) -> list[str]:
    rows, texts = check_inputs(inputs), []
    if rows and isinstance(rows[0], tuple):
        raise DataError("inputs: a task of kind generation has single texts, these rows are pairs")
    check_whole(max_new_tokens, "max_new_tokens")
    language = model.language
    for start in _chunks(len(rows), WRITTEN, progress):
        query, query_y = map(torch.from_numpy, language.layout.tokenize(rows[start : start + WRITTEN]))
        prompt, query, query_y = (t.to(language.device) for t in (model.params["prompt"], query[None], query_y[None]))
        texts += language.write(prompt, query, query_y, max_new_tokens)[0].tolist()
    return texts


def _logits(model: AdaptedModel, rows: list, progress: bool) -> Logits:
    query = encode_inputs(model.encoder, rows, progress)[None].to(next(model.head.parameters()))
    with torch.autocast(query.device.type, enabled=False):
        there = torch.ones(query.shape[:2], dtype=torch.bool, device=query.device)
        return corrected(model.head.logits(model.params, query, there), model.params, query)


def _chunks(n: int, size: int, progress: bool) -> Iterator[int]:
    """Where parts of ``size`` of n rows begin; a bar where there are several, and it takes longer than five seconds."""
    from tqdm.auto import tqdm

    with tqdm(total=n, desc="predicting", unit="row", delay=5, disable=None if progress and n > size else True) as bar:
        for start in range(0, n, size):
            yield start
            bar.update(min(size, n - start))
