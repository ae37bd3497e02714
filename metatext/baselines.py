"""The methods that heads are compared with, by name: each answers the same episodes from the same features."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from .heads import NO_LANGUAGE
from .heads.protocol import mask_classes
from .kinds import KINDS
from .methods import Answer, Draw, Method, by_model, no_answer, written_answer
from .model import MetaModel
from .representation import class_means
from .rivals import fine_tuned_spans, setfit
from .settings import ConfigError, nearest

NEIGHBOURS = 5  # of `knn`


def label_names(draw: Draw) -> Answer:
    """Softmax of 20 x the cosine to the label name; no support row is used."""
    support = draw.features.support
    return _by_cosine(draw, support.label_x, support.label_mask)


def nearest_centroid(draw: Draw) -> Answer:
    """Softmax of 20 x the cosine to the mean of the class's rows; no name is used."""
    support = draw.features.support
    means, count = class_means(support, support.x)
    return _by_cosine(draw, means, count > 0)


def naive_mean(draw: Draw) -> Answer:
    """Softmax of 20 x the cosine to label name + mean of the class's rows (of unit length), or to the one that is there."""
    support = draw.features.support
    means, count = class_means(support, support.x)
    return _by_cosine(
        draw, normalize(means, dim=-1) + support.label_x * support.label_mask[..., None], (count > 0) | support.label_mask
    )


def knn(draw: Draw) -> Answer:
    """The `NEIGHBOURS` rows of the support with the largest cosine vote, each with weight exp(20 x cosine)."""
    support, query = draw.features.support, draw.features.query
    cosine = mask_classes(query @ support.x.mT, support.row_mask)  # (b, q, d) @ (b, d, s) -> (b, q, s)
    if not cosine.shape[2]:
        return no_answer(draw)
    best, rows = cosine.topk(min(NEIGHBOURS, cosine.shape[2]), -1)
    votes = torch.zeros_like(cosine).scatter_(-1, rows, (20 * best).softmax(-1))
    answer = votes @ support.y  # (b, q, s) @ (b, s, w) -> (b, q, w)
    return _where(support.row_mask.any(1), answer, (1 + best[..., 0]) / 2)


def logistic_regression(draw: Draw) -> Answer:
    """scikit-learn's LogisticRegression(C=10, max_iter=500) on the support's features, episode by episode; one against the rest where
    a row may have several labels."""
    support = draw.features.support
    if not KINDS[draw.source.kind].by_class:
        return _one_against_the_rest(draw)
    return _by_logistic_regression(draw, support.x, support.y, support.row_mask)


def logistic_regression_names(draw: Draw) -> Answer:
    """`logistic_regression` with the label names as further rows of their classes."""
    support = draw.features.support
    names = torch.diag_embed(support.label_mask.to(support.y.dtype))  # (b, w, w): name c is a row of class c
    parts = ((support.x, support.label_x), (support.y, names), (support.row_mask, support.label_mask))
    return _by_logistic_regression(draw, *(torch.cat(pair, 1) for pair in parts))


def ridge_regression(draw: Draw) -> Answer:
    """scikit-learn's Ridge(alpha=1) on the support's features, episode by episode."""
    from sklearn.linear_model import Ridge

    def fit(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        return Ridge(alpha=1.0).fit(x, y).predict(query).reshape(len(query), -1)

    support = draw.features.support
    return _by_fit(draw, fit, support.x, support.y, support.row_mask)


def pair_cosine(draw: Draw) -> Answer:
    """The cosine of the two texts of each pair, read apart; no support row is used. No answer to single texts."""
    ids = draw.source.row_ids(draw.batch.query)
    if ids.shape[-1] < 3:
        return no_answer(draw)
    first, second = (draw.source.store.gather(ids[..., i]) for i in (1, 2))
    cosine = torch.from_numpy((first * second).sum(-1))
    return Answer(cosine[..., None], (1 + cosine) / 2)


def _copied(draw: Draw) -> Answer:
    """The input, as it is."""
    return written_answer(_by_texts(draw, lambda i, asked: asked))


def _prompted(model: MetaModel) -> Method:
    """The language model as it was pretrained, with the description and the examples as text in its context."""
    if model.language is None:
        raise ConfigError(f"baseline 'prompted': {NO_LANGUAGE}")
    language = model.language.pretrained()

    def answer(draw: Draw) -> Answer:
        def write(i: int, asked: list[str]) -> list[str]:
            batch = draw.batch
            task = draw.source.tasks[batch.task[i]]
            seen = draw.source.texts(batch.support[i, batch.support[i] >= 0])
            return language.write_prompted(task.prompt if batch.described[i] else None, list(zip(*seen, strict=True)), asked)

        return written_answer(_by_texts(draw, write))

    return Method(answer)


def _by_texts(draw: Draw, write: Callable[[int, list[str]], list[str]]) -> np.ndarray:
    """From a function of the number of an episode and the inputs of its queries."""
    out = np.full(draw.batch.query.shape, "", object)
    for i, rows in enumerate(draw.batch.query):
        out[i, rows >= 0] = write(i, draw.texts(rows[rows >= 0]))
    return out


def _one_against_the_rest(draw: Draw) -> Answer:
    from sklearn.linear_model import LogisticRegression

    def fit(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        out = np.zeros((len(query), y.shape[1]))
        for c in np.flatnonzero(y.any(0)):  # a label without a row is never answered
            always = y[:, c].all()  # one class cannot be fitted
            out[:, c] = 1.0 if always else LogisticRegression(C=10, max_iter=500).fit(x, y[:, c]).predict_proba(query)[:, 1]
        return out

    support = draw.features.support
    return _by_fit(draw, fit, support.x, support.y, support.row_mask)


def _by_fit(
    draw: Draw, fit: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], x: Tensor, y: Tensor, mask: Tensor
) -> Answer:
    """From a function of n rows, their targets (n, w) and query features, episode by episode; no answer to one without rows.

    Args:
        draw: whose query is asked.
        fit: gives (q, w).
        x, y, mask: (b, s, d), (b, s, w) and (b, s): the rows.
    """
    from threadpoolctl import threadpool_limits

    rows, targets, live, query = (values.cpu().numpy() for values in (x, y, mask, draw.features.query))
    out = np.full((*query.shape[:2], targets.shape[2]), np.nan, np.float32)
    with threadpool_limits(1):  # such small fits lose time to threads
        for i in np.flatnonzero(live.any(1)):
            out[i] = fit(rows[i, live[i]], targets[i, live[i]], query[i])
    return Answer(torch.from_numpy(out), torch.from_numpy(out.max(-1)))


def _untrained(model: MetaModel) -> Method:
    """The head at its start, on the encoder as it was pretrained, which takes no steps.

    It starts from seed 0, whatever seed or warm start the model began with. No seed moves what a head of metatext answers at its start, but
    for spans: what is random there is multiplied by numbers that start at 0. The start and end vectors of a `SpanHead` are random.
    """
    language = model.language.pretrained() if model.language is not None else None
    fresh = MetaModel.from_encoder(model.encoder.pretrained(), replace(model.head_config, encoder_steps=0), language=language)
    return by_model(fresh.to(model.device).eval())


def _without_examples(model: MetaModel) -> Method:
    own = by_model(model)

    def answer(draw: Draw) -> Answer:
        support = draw.features.support
        bare = replace(support, x=support.x[:, :0], y=support.y[:, :0], row_mask=support.row_mask[:, :0])
        return own(replace(draw, features=replace(draw.features, support=bare)))

    return replace(own, answer=answer)


def _fine_tuning(model: MetaModel) -> Method:
    fit = None

    def answer(draw: Draw) -> Answer:
        nonlocal fit
        fit = fit or fine_tuned_spans(model.encoder.pretrained())  # only when it is asked
        values = fit(draw.source, draw.batch)
        return Answer(values, torch.zeros(values.shape[:2]))

    return Method(answer)


def _setfit(model: MetaModel) -> Method:
    fit = setfit(model.encoder.frozen())

    def answer(draw: Draw) -> Answer:
        batch, out = draw.batch, no_answer(draw).probabilities.cpu()
        for i in range(len(batch)):
            rows, live = batch.support[i] >= 0, batch.query[i] >= 0
            if len(np.unique(batch.support_y[i, rows])) > 1:
                seen, asked = draw.texts(batch.support[i, rows]), draw.texts(batch.query[i, live])
                out[i] = 0.0
                predict = fit(seen, batch.support_y[i, rows], out.shape[2], draw.names(i))
                out[i, torch.from_numpy(live)] = predict(asked)
        return Answer(out, out.amax(-1))

    return Method(answer)


CLASSES, LABELS = ("classification",), ("classification", "multilabel")
BASELINES: dict[str, tuple[Callable[[MetaModel], Method], Collection[str]]] = {
    "untrained": (_untrained, KINDS),
    "label_names": (lambda model: Method(label_names), CLASSES),
    "nearest_centroid": (lambda model: Method(nearest_centroid), CLASSES),
    "knn": (lambda model: Method(knn), CLASSES),
    "naive_mean": (lambda model: Method(naive_mean), CLASSES),
    "logistic_regression": (lambda model: Method(logistic_regression), LABELS),
    "logistic_regression_pretrained": (lambda model: Method(logistic_regression, model.encoder.pretrained()), LABELS),
    "logistic_regression_names": (lambda model: Method(logistic_regression_names), CLASSES),
    "ridge_regression": (lambda model: Method(ridge_regression), ("regression",)),
    "pair_cosine": (lambda model: Method(pair_cosine), ("regression",)),
    "setfit": (_setfit, CLASSES),
    "without_examples": (_without_examples, ("multilabel", "regression", "span")),
    "fine_tuning": (_fine_tuning, ("span",)),
    "prompted": (_prompted, ("generation",)),
    "copied": (lambda model: Method(_copied), ("generation",)),
}
"""How each is made for a model, and the kinds of task that it can answer."""
USUAL = {
    "classification": ("untrained", "label_names", "nearest_centroid", "logistic_regression"),
    "multilabel": ("untrained", "logistic_regression"),
    "regression": ("untrained", "ridge_regression", "pair_cosine"),
    "span": ("untrained", "without_examples"),
    "generation": ("untrained", "prompted", "copied"),
}
"""The baselines that each kind is measured beside if none are named."""


def baseline(name: str, model: MetaModel) -> Method:
    """The baseline ``name`` of `BASELINES` on the encoder of ``model``.

    Raises:
        ConfigError: there is none of that name, or it needs a package that is not installed.
    """
    if name not in BASELINES:
        raise ConfigError(f"unknown baseline {name!r}{nearest(name, BASELINES, end='.')} Known: {', '.join(BASELINES)}")
    make, kinds = BASELINES[name]
    method = make(model)

    def answer(draw: Draw) -> Answer:
        return method(draw) if draw.source.kind in kinds else no_answer(draw)

    return replace(method, answer=answer)


def _by_cosine(draw: Draw, classes: Tensor, known: Tensor) -> Answer:
    """From class vectors (b, w, d) of any length; no answer to an episode with a class that has none."""
    cosine = mask_classes(draw.features.query @ normalize(classes, dim=-1).mT, known)  # (b, q, d) @ (b, d, w) -> (b, q, w)
    everyone = (known == draw.features.support.class_mask).all(1)
    return _where(everyone, (20 * cosine).softmax(-1), (1 + cosine.amax(-1)) / 2)


def _by_logistic_regression(draw: Draw, x: Tensor, y: Tensor, mask: Tensor) -> Answer:
    from sklearn.linear_model import LogisticRegression

    def fit(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        way, out = y.argmax(-1), np.zeros((len(query), y.shape[1]))
        if (way == way[0]).all():  # one class cannot be fitted
            return np.full_like(out, np.nan)
        fitted = LogisticRegression(C=10, max_iter=500).fit(x, way)
        out[:, fitted.classes_] = fitted.predict_proba(query)
        return out

    return _by_fit(draw, fit, x, y, mask)


def _where(answered: Tensor, probabilities: Tensor, confidence: Tensor) -> Answer:
    """An answer, but none to the episodes where ``answered`` (b,) is False."""
    return Answer(torch.where(answered[:, None, None], probabilities, torch.nan), confidence)
