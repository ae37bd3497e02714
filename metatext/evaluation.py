"""Evaluation on unseen tasks: means with 95 % intervals, against named baselines on the same episodes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from .config import ConfigError, EpisodeConfig, nearest, to_dict
from .episodes import EpisodeBatch, draw_episodes
from .features import EpisodeFeatures, FeatureStore, TaskFeatures, encode_tasks
from .heads.protocol import mask_classes
from .kinds import KINDS
from .metrics import ece, interval, nll
from .model import MetaModel
from .representation import class_means
from .tasks import Task, check_tasks

ROWS = 40_000  # support and query rows gathered at a time

Method = Callable[[EpisodeFeatures], Tensor]
"""Episodes -> (b, q, w) probabilities of the query rows; NaN where the method has no answer."""


def label_names_alone(episodes: EpisodeFeatures) -> Tensor:
    """Softmax of 20 x the cosine to the label name; no support row is used."""
    support = episodes.support
    answer = _by_cosine(episodes.query, support.label_x, support.label_mask)
    return torch.where((support.label_mask == support.class_mask).all(1)[:, None, None], answer, torch.nan)


def nearest_centroid(episodes: EpisodeFeatures) -> Tensor:
    """Softmax of 20 x the cosine to the mean of the class's rows; no name is used."""
    support = episodes.support
    means, count = class_means(support, support.x)
    answer = _by_cosine(episodes.query, normalize(means, dim=-1), count > 0)
    return torch.where(((count > 0) == support.class_mask).all(1)[:, None, None], answer, torch.nan)


def logistic_regression(episodes: EpisodeFeatures) -> Tensor:
    """scikit-learn's LogisticRegression(C=10, max_iter=500) on the support's features, episode by episode."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    support = episodes.support
    x, query = support.x.cpu().numpy(), episodes.query.cpu().numpy()
    y, mask = support.y.argmax(-1).cpu().numpy(), support.row_mask.cpu().numpy()
    out = np.full((*query.shape[:2], support.y.shape[2]), np.nan, np.float32)
    for i in range(len(x)):
        rows = mask[i]
        if len(np.unique(y[i, rows])) > 1:
            with threadpool_limits(1):  # such small fits lose time to threads
                fitted = LogisticRegression(C=10, max_iter=500).fit(x[i, rows], y[i, rows])
            out[i] = 0.0
            out[i][:, fitted.classes_] = fitted.predict_proba(query[i])
    return torch.from_numpy(out)


def by_model(model: MetaModel) -> Method:
    """A model's own probabilities."""

    def answer(episodes: EpisodeFeatures) -> Tensor:
        return model(episodes).values.softmax(-1)

    return answer


BASELINES: dict[str, Callable[[MetaModel], Method]] = {
    "untrained": lambda model: by_model(MetaModel.from_encoder(model.encoder, model.head_config).to(_device(model)).eval()),
    "label_names": lambda model: label_names_alone,
    "nearest_centroid": lambda model: nearest_centroid,
    "logistic_regression": lambda model: logistic_regression,
}


@dataclass(frozen=True)
class Report:
    """Figures of several methods on the same episodes.

    Attributes:
        metric: name of the figure.
        scores: task -> method -> (n_episodes,) figure of each episode, NaN where the method has no answer.
        pooled: task -> method -> figures over all query rows together (``nll``, ``ece``).
        settings: how the episodes were drawn.
    """

    metric: str
    scores: dict[str, dict[str, np.ndarray]]
    pooled: dict[str, dict[str, dict[str, float]]]
    settings: dict[str, Any]

    @property
    def methods(self) -> list[str]:
        return list(next(iter(self.scores.values())))

    def mean(self, method: str = "trained", task: str | None = None) -> tuple[float, float]:
        """Mean and half-width of the 95 % interval: of one task over its episodes (Student's t), else over the tasks."""
        if task is not None:
            return interval(self.scores[task][method])
        means = np.array([scores[method].mean() for scores in self.scores.values()])
        return interval(means) if len(means) > 1 else interval(next(iter(self.scores.values()))[method])

    def difference(self, method: str, other: str) -> tuple[float, float]:
        """Mean paired difference ``method - other`` over all episodes, and the half-width of its 95 % interval."""
        return interval(np.concatenate([scores[method] - scores[other] for scores in self.scores.values()]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: settings, one entry per task and method, and the means over the tasks."""

        def entry(method: str, task: str | None = None) -> dict[str, Any]:
            mean, half = self.mean(method, task)
            known = {} if np.isnan(mean) else {self.metric: round(mean, 6), "interval_95": round(half, 6)}
            return {**known, **({k: round(v, 6) for k, v in self.pooled[task][method].items()} if task else {})}

        return {
            "metric": self.metric,
            "settings": self.settings,
            "tasks": {task: {method: entry(method, task) for method in self.methods} for task in self.scores},
            "mean": {method: entry(method) for method in self.methods},
        }

    def __str__(self) -> str:
        width = max(len(name) for name in [*self.scores, "mean over tasks"])
        columns = [max(13, len(method) + 2) for method in self.methods]
        lines = ["".join([" " * width, *(m.rjust(c) for m, c in zip(self.methods, columns, strict=True))])]
        for task in [*self.scores, None]:
            if task is None and len(self.scores) == 1:
                break
            cells = []
            for method, column in zip(self.methods, columns, strict=True):
                mean, half = self.mean(method, task)
                cells.append(("-" if np.isnan(mean) else f"{100 * mean:.1f} ± {100 * half:.1f}").rjust(column))
            lines.append("".join([(task or "mean over tasks").ljust(width), *cells]))
        shape = ", ".join(
            f"{k} {v}" for k, v in self.settings.items() if k in ("n_way", "k_shot", "n_query", "n_episodes", "seed")
        )
        return "\n".join(
            [*lines, f"{self.metric} in %, mean ± 95 % interval (a task: over episodes; the mean: over tasks); {shape} per task"]
        )


def evaluate_tasks(
    model: MetaModel,
    tasks: Sequence[Task],
    episodes: EpisodeConfig = EpisodeConfig(n_way=5, k_shot=5, n_query=5),
    n_episodes: int = 600,
    seed: int = 0,
    baselines: Sequence[str] = ("untrained", "label_names", "nearest_centroid", "logistic_regression"),
    *,
    store: FeatureStore | None = None,
    progress: bool = True,
) -> Report:
    """Measure a model and baselines on the same episodes of every task.

    Args:
        model: its column is called "trained".
        tasks: unseen tasks. The episodes of a task depend on its name and ``seed``, not on the other tasks.
        episodes: their shape.
        n_episodes: per task.
        seed: of the episodes.
        baselines: names out of `BASELINES`.
        store: where features are kept; None: the default folder.
        progress: show a bar.

    Raises:
        ConfigError: an unknown baseline.
        DataError: no task, or two of one name.
        EpisodeError: a task has too few classes or rows for these episodes.
    """
    from tqdm.auto import tqdm

    for name in baselines:
        if name not in BASELINES:
            raise ConfigError(f"unknown baseline {name!r}{nearest(name, BASELINES, end='.')} Known: {', '.join(BASELINES)}")
    check_tasks(tasks)
    store = store or FeatureStore(model.encoder, progress=progress)
    methods: dict[str, Method] = {"trained": by_model(model)}
    methods |= {name: BASELINES[name](model) for name in baselines}
    model.eval()
    drawn = [(f := encode_tasks(store, [task]), draw_for(f, episodes, n_episodes, seed)) for task in tasks]
    scores, pooled = {}, {}
    with tqdm(total=len(tasks) * n_episodes, desc="evaluating", unit="episode", disable=not progress) as bar:
        for features, batch in drawn:
            name = features.tasks[0].name
            scores[name], pooled[name] = _measure(features, batch, methods, _device(model), bar)
    settings = {**to_dict(episodes), "n_episodes": n_episodes, "seed": seed}
    return Report(KINDS[tasks[0].kind].metric_name, scores, pooled, settings)


def draw_for(features: TaskFeatures, episodes: EpisodeConfig, n: int, seed: int) -> EpisodeBatch:
    """The n evaluation episodes of the only task of ``features``."""
    rng = np.random.default_rng([seed, zlib.crc32(features.tasks[0].name.encode())])
    return draw_episodes(features.pool, episodes, np.zeros(n, np.int64), rng)


def chunks(batch: EpisodeBatch) -> list[EpisodeBatch]:
    """Parts of a batch that gather about ``ROWS`` rows each."""
    size = max(1, ROWS // (batch.support.shape[1] + batch.query.shape[1]))
    return [batch[i : i + size] for i in range(0, len(batch), size)]


@torch.no_grad()
def episode_scores(model: MetaModel, features: TaskFeatures, batch: EpisodeBatch) -> tuple[np.ndarray, np.ndarray]:
    """(n,) figure and (n,) loss of each episode, for the evaluations during training."""
    kind = KINDS[features.tasks[0].kind]
    figures, losses = [], []
    for part in chunks(batch):
        episodes = features.gather(part, _device(model))
        logits = model(episodes)
        losses.append(kind.loss(logits, episodes.query_y, episodes.query_mask, episodes.outside).cpu().numpy())
        figures.append(_figures(kind.metric, logits.values.softmax(-1).cpu().numpy(), part))
    return np.concatenate(figures), np.concatenate(losses)


@torch.no_grad()
def _measure(features: TaskFeatures, batch: EpisodeBatch, methods: dict[str, Method], device, bar):
    kind = KINDS[features.tasks[0].kind]
    scores = {name: [] for name in methods}
    rows = {name: [] for name in methods}
    for part in chunks(batch):
        episodes = features.gather(part, device)
        inside = (part.query >= 0) & ~part.outside
        for name, method in methods.items():
            probabilities = method(episodes).float().cpu().numpy()
            scores[name].append(_figures(kind.metric, probabilities, part))
            rows[name].append(probabilities[inside])
        bar.update(len(part))
    targets = np.concatenate([part.query_y[(part.query >= 0) & ~part.outside] for part in chunks(batch)])
    pooled = {}
    for name, parts in rows.items():
        probabilities = np.concatenate(parts)
        undefined = np.isnan(probabilities).any()
        pooled[name] = {} if undefined else {"nll": nll(probabilities, targets), "ece": ece(probabilities, targets)}
    return {name: np.concatenate(parts) for name, parts in scores.items()}, pooled


def _figures(metric: Callable, probabilities: np.ndarray, part: EpisodeBatch) -> np.ndarray:
    inside = (part.query >= 0) & ~part.outside
    figures = np.full(len(part), np.nan)
    for i in range(len(part)):
        if not np.isnan(probabilities[i]).any():
            figures[i] = metric(probabilities[i][inside[i]], part.query_y[i][inside[i]])
    return figures


def _by_cosine(query: Tensor, classes: Tensor, mask: Tensor) -> Tensor:
    return mask_classes(20 * query @ classes.mT, mask).softmax(-1)


def _device(model: MetaModel) -> torch.device:
    return next(model.head.parameters()).device
