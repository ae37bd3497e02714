"""Evaluation on unseen tasks: a head, further heads and named baselines on the same episodes."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import calibration
from .baselines import USUAL, baseline
from .calibration import FAR, INSIDE, NEAR, Rows
from .config import EpisodeConfig
from .episodes import EpisodeBatch, draw_episodes
from .features import TaskFeatures, encode_tasks
from .generation import GenerationFeatures
from .heads.protocol import CELLS
from .kinds import KINDS, Kind
from .methods import Draw, Method, by_model
from .metrics import METRICS, check_installed
from .model import LOAD, MetaModel
from .report import Report
from .rows import DataError, as_list, check_whole
from .settings import ConfigError, check_is, nearest, to_dict
from .spans import SpanFeatures
from .store import FeatureStore, TokenStore
from .tasks import Task, check_tasks

if TYPE_CHECKING:
    from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

ROWS = 40_000  # support and query rows gathered at a time
RISK_EPISODES = EpisodeConfig(n_way=(2, 16), k_shot=(0, 10), n_query=2, n_outside=8)
RISK_N, RISK_N_STEPS = 200, 40  # episodes per task; of a head that takes steps on the encoder, a second each
THRESHOLD_EPISODES = EpisodeConfig(k_shot=(0, 48), n_query=20)  # no more rows than `heldout.EVAL_ROWS` asks for
THRESHOLDS = np.linspace(0.02, 0.98, 49)
OUTSIDE_SHARE = 0.2  # of the rows belong to no class, as far as `risk_answers` is concerned


def evaluate_tasks(
    model: MetaModel,
    tasks: Sequence[Task],
    episodes: EpisodeConfig = EpisodeConfig(n_way=5, k_shot=5, n_query=5),
    n_episodes: int = 600,
    seed: int = 0,
    baselines: Sequence[str] | None = None,
    *,
    metric: str | None = None,
    heads: Mapping[str, MetaModel] | None = None,
    outside: Task | None = None,
    outside_rows: int | None = None,
    store: FeatureStore | None = None,
    progress: bool = True,
) -> Report:
    """Measure a model, further models and baselines on the same episodes of every task.

    Args:
        model: its column is called "trained".
        tasks: unseen tasks of one kind. The episodes of a task depend on its name and ``seed``, not on the other tasks.
        episodes: their shape.
        n_episodes: per task, 2 at least.
        seed: of the episodes.
        baselines: names out of `baselines.BASELINES`; None: those that suit the kind (`baselines.USUAL`). "untrained" starts from seed 0, and a
            seed moves its answers to spans only; for other starts give ``heads={"start 1": MetaModel.from_encoder(..., seed=1)}``.
        metric: the figure, out of those of `kinds.KINDS`; None: the kind's main one.
        heads: further models, by the names of their columns; each reads the episodes with its own encoder.
        outside: a task whose rows belong to no class: they become further query rows of every episode.
        outside_rows: how many of its rows an episode gets, drawn at random; None: all of them.
        store: where features are kept; None: the default folder.
        progress: show a bar.

    Raises:
        ConfigError: an unknown baseline or metric, or a baseline that needs a package that is not installed; a head that bears the name
            of another column.
        DataError: no task, two of one name, or of two kinds, or of one that the model does not serve; ``outside`` is measured itself, is of
            another kind, or has no text that is not the task's; ``outside_rows`` is no number of rows.
        EpisodeError: a task has too few classes or rows for these episodes.
    """
    check_is(episodes, EpisodeConfig, "episodes", "write EpisodeConfig(...)")
    check_whole(n_episodes, "n_episodes", 2)  # one has no interval
    check_whole(seed, "seed", 0)
    check_is(outside, (Task, type(None)), "outside", "load it with load_task", DataError)
    if outside_rows is not None:
        check_whole(outside_rows, "outside_rows", 1)
    check_is(heads, (Mapping, type(None)), "heads", "write {'name of its column': model}")
    heads = heads or {}
    check_is(model, MetaModel, "model", LOAD)
    for name, head in heads.items():
        check_is(head, MetaModel, f"heads: {name}", LOAD)
    [tasks] = check_tasks(tasks)
    baselines = (
        USUAL[tasks[0].kind] if baselines is None else as_list(baselines, "baselines", "names", "write them in their order")
    )
    for name, head in {"trained": model, **heads}.items():
        if tasks[0].kind not in head.kinds:
            raise DataError(f"tasks: {tasks[0].name!r} is of kind {tasks[0].kind}, {name} serves {', '.join(head.kinds)}")
    lacking = [task.name for task in tasks if not task.other_label_names]
    if episodes.other_names and lacking:
        logger.warning(
            "other_names has no effect on %s: no other_label_names; see Task.with_other_label_names", ", ".join(lacking)
        )
    for name in heads:
        if name == "trained" or name in baselines:
            raise ConfigError(f"heads: two columns would be called {name!r}; give the head another name")
    if store is not None and store.encoder.key != model.encoder.frozen().key:
        raise ConfigError(
            "store: its features are of another encoder, or of the model's before it learned; make a new FeatureStore"
        )
    methods = {name: by_model(head.eval()) for name, head in {"trained": model, **heads}.items()}
    methods |= {name: baseline(name, model) for name in baselines}
    store = store or FeatureStore(model.encoder, progress=progress)
    return compare(
        methods,
        tasks,
        episodes,
        n_episodes,
        seed,
        metric=metric,
        store=store,
        outside=outside,
        outside_rows=outside_rows,
        progress=progress,
    )


def compare(
    methods: Mapping[str, Method],
    tasks: Sequence[Task],
    episodes: EpisodeConfig,
    n_episodes: int,
    seed: int,
    *,
    metric: str | None = None,
    store: FeatureStore,
    outside: Task | None = None,
    outside_rows: int | None = None,
    progress: bool = True,
) -> Report:
    """`evaluate_tasks` for methods by the names of their columns, on the features of ``store`` or of an encoder of their own."""
    from tqdm.auto import tqdm

    check_tasks(tasks)
    if outside is not None and outside.name in {task.name for task in tasks}:
        raise DataError(f"outside: the task {outside.name!r} is measured itself, so its rows cannot be queries of no class")
    kind = KINDS[tasks[0].kind]
    other = next((task for task in tasks if task.kind != kind.name), None)
    if other is not None:
        raise DataError(
            f"tasks: {tasks[0].name!r} is of kind {kind.name}, {other.name!r} of kind {other.kind}; measure each kind by itself: name tasks "
            f"of one kind, or take [t for t in tasks if t.kind == {kind.name!r}]"
        )
    metric = metric or kind.metrics[0]
    if metric not in kind.metrics:
        raise ConfigError(
            f"metric: {metric!r}{nearest(metric, kind.metrics, end='.')} For {kind.name}: {', '.join(kind.metrics)}"
        )
    check_installed(metric)
    if outside is not None and not kind.by_class:
        raise DataError(f"outside: rows of no class are asked of classifications only, the tasks are of kind {kind.name}")
    if outside is not None and outside.kind != kind.name:
        raise DataError(
            f"outside: {outside.name!r} is of kind {outside.kind}, the tasks are of kind {kind.name}; load it with kind={kind.name!r}"
        )
    stores: dict[str, FeatureStore | TokenStore] = {store.encoder.key: store}
    through: dict[str, str] = {}  # method -> the store that it sees the tasks through
    for name, method in methods.items():
        encoder = method.encoder.frozen() if method.encoder is not None else store.encoder
        key = through[name] = f"texts for {name}" if method.reads_texts else encoder.key
        if method.reads_texts:
            stores[key] = TokenStore(method.encoder)
        elif key not in stores:
            stores[key] = FeatureStore(encoder, store.folder.parent, progress=store.progress)
    drawn = []
    for task in tasks:  # all of them first: what cannot be drawn shows before anything is measured
        group = [task] if outside is None else [task, outside]
        views = {key: encode_tasks(own, group, episodes) for key, own in stores.items()}
        alone = views[store.encoder.key] if outside is None else encode_tasks(store, [task], episodes)
        batch = draw_for(alone, episodes, n_episodes, seed)
        if outside is not None:  # rows have the same numbers in all views
            batch = _with_outside(views[store.encoder.key], batch, outside_rows, seed)
        drawn.append((views, batch))
    scores, rows = {}, {}
    with tqdm(total=len(tasks) * n_episodes, desc="evaluating", unit="episode", disable=not progress) as bar:
        for task, (views, batch) in zip(tasks, drawn, strict=True):
            views = {key: view if isinstance(view.store, TokenStore) else view.encoded(batch) for key, view in views.items()}
            found = {name: (method, views[through[name]]) for name, method in methods.items()}
            scores[task.name], rows[task.name] = measure(batch, found, kind, metric, bar)
    settings = {**to_dict(episodes), "n_episodes": n_episodes, "seed": seed}
    if outside is not None:
        settings |= {"outside": outside.name, "outside_rows": outside_rows}
    # names say little of a corpus that may change: with these a table can be made again, or seen to be of other rows
    settings["data"] = {task.name: task.digest() for task in (*tasks, *([outside] if outside else []))}
    return Report(metric, scores, rows, settings)


def draw_for(features: TaskFeatures, episodes: EpisodeConfig, n: int, seed: int) -> EpisodeBatch:
    """The n evaluation episodes of the only task of ``features``."""
    rng = np.random.default_rng([seed, zlib.crc32(features.tasks[0].name.encode())])
    return draw_episodes(features.pool, episodes, np.zeros(n, np.int64), rng)


def chunks(batch: EpisodeBatch, row_size: int = 1) -> list[EpisodeBatch]:
    """Parts of a batch that gather about `ROWS` rows and make tables of about `CELLS` numbers, one episode at least; a row is
    ``row_size`` vectors."""
    support, query, ways = batch.support.shape[1], batch.query.shape[1], batch.classes.shape[1]
    size = max(1, min(ROWS // (row_size * (support + query)), CELLS // (query * (support + 8 * ways))))
    return [batch[i : i + size] for i in range(0, len(batch), size)]


@torch.no_grad()
def episode_scores(model: MetaModel, features: TaskFeatures, batch: EpisodeBatch) -> tuple[np.ndarray, np.ndarray]:
    """(n,) `Kind.watched` and (n,) loss of each episode, for the evaluations during training."""
    kind = KINDS[features.tasks[0].kind]
    figures, losses = [], []
    features = features if model.adapts_encoder else features.encoded(batch)
    for part in chunks(batch, features.row_size):
        episodes = model.read(features.gather(part, model.device))
        logits = model(episodes)
        losses.append(kind.loss(logits, episodes.query_y, episodes.query_mask, episodes.outside).cpu().numpy())
        if kind.written:
            figures.append(np.exp(-losses[-1]))
        else:
            figures.append(_figures(kind.metrics[0], model.answers(kind.name, logits.values).cpu().numpy(), part, features))
    return np.concatenate(figures), np.concatenate(losses)


@torch.no_grad()
def risk_answers(model: MetaModel, features: TaskFeatures, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `fit_risk` learns from on one task: the score of each answer, whether it was wrong, and how much it counts.

    Every episode counts alike; where it has rows of other classes, these count a fifth.

    Args:
        model: the trained model.
        features: of one task that did not train it.
        seed: of the episodes, `RISK_N` of the shape `RISK_EPISODES`, or `RISK_N_STEPS`.
    """
    score, wrong, weight = [], [], []
    batch = draw_for(features, RISK_EPISODES, RISK_N_STEPS if model.adapts_encoder else RISK_N, seed)
    features = features if model.adapts_encoder else features.encoded(batch)
    for part in chunks(batch):
        answer = by_model(model)(Draw(features.gather(part, model.device), part, features))
        real = part.query >= 0
        top = (answer.probabilities.amax(-1) * answer.confidence).numpy()
        right = answer.probabilities.argmax(-1).numpy() == part.query_y  # never for a row of no class
        share = np.where(part.outside.any(1), OUTSIDE_SHARE, 0.0)[:, None]
        outside, inside = (rows.sum(1, keepdims=True).clip(1) for rows in (part.outside, real & ~part.outside))
        score.append(1 - top[real])
        wrong.append(~right[real])
        weight.append(np.where(part.outside, share / outside, (1 - share) / inside)[real])
    return np.concatenate(score), np.concatenate(wrong), np.concatenate(weight)


@torch.no_grad()
def threshold_figures(model: MetaModel, features: TaskFeatures, seed: int) -> np.ndarray:
    """(len(THRESHOLDS),) mean macro-F1 of one multilabel task over `RISK_N` episodes, by the probability that makes a label an answer."""
    batch = draw_for(features, THRESHOLD_EPISODES, RISK_N, seed)
    features, figure, found = features.encoded(batch), METRICS["multilabel_macro_f1"], []
    for part in chunks(batch):
        answers = KINDS["multilabel"].answer(model(features.gather(part, model.device)).values).cpu().numpy()
        for probabilities, targets in features.judged(answers, part, "multilabel_macro_f1"):
            found.append([figure(probabilities >= threshold, targets) for threshold in THRESHOLDS])
    return np.mean(found, 0)


def _with_outside(both: TaskFeatures, batch: EpisodeBatch, n: int | None, seed: int) -> EpisodeBatch:
    """Rows of the second task, each text once and none that the first has too, as further queries of every episode of the first."""
    task, outside = both.tasks
    texts, first = np.unique(both.rows[len(task) :, 0], return_index=True)
    rows = len(task) + np.sort(first[~np.isin(texts, both.rows[: len(task), 0])])
    if not len(rows):
        raise DataError(f"outside: every text of the task {outside.name!r} is also a text of {task.name!r}")
    if n is None or n >= len(rows):
        extra = np.broadcast_to(rows, (len(batch), len(rows)))
    else:
        rng = np.random.default_rng([seed, zlib.crc32(task.name.encode()), zlib.crc32(outside.name.encode())])
        extra = rows[rng.random((len(batch), len(rows))).argsort(1)[:, :n]]
    # in the numbers of both tasks (see `Pool`) the second one's labels stand before names that say nothing
    place, label = np.divmod(batch.name, len(task.labels))
    name = np.where(batch.name < 0, -1, np.where(place > 0, place + 1, 0) * both.labels.shape[1] + label)
    return replace(batch, name=name).with_outside(extra)


@torch.no_grad()
def measure(
    batch: EpisodeBatch, methods: Mapping[str, tuple[Method, TaskFeatures]], kind: Kind, metric: str, bar: tqdm
) -> tuple[dict[str, np.ndarray], dict[str, Rows]]:
    """Answers of several methods to n episodes of one task, judged.

    Args:
        batch: the episodes; their rows have the same numbers for all methods.
        methods: by their names, each with the task, and one of rows of no class if there is one, through the encoder that it
            reads with.
        kind: of the task.
        metric: one of the figures of the kind.
        bar: goes on by an episode for each.

    Returns:
        method -> (n,) figure of each episode, NaN where it has no answer; and method -> `Rows` of all queries in the order of the
        episodes, nothing where they are not classified.
    """
    scores, rows = {name: [] for name in methods}, {name: [] for name in methods if kind.by_class}
    for part in chunks(batch, max(features.row_size for _, features in methods.values())):
        draws: dict[int, Draw] = {}
        real = part.query >= 0
        for name, (method, features) in methods.items():
            if id(features) not in draws:
                draws[id(features)] = Draw(features.gather(part, features.store.encoder.device), part, features)
            group = np.where(part.outside, np.where(part.query < len(features.tasks[0]), NEAR, FAR), INSIDE)[real]
            answer = method(draws[id(features)])
            probabilities, confidence = answer.probabilities, answer.confidence.cpu().numpy()
            if not kind.written:
                probabilities = probabilities.float().cpu().numpy()
            scores[name].append(_figures(metric, probabilities, part, features))
            if kind.by_class:
                rows[name].append(calibration.judge(probabilities[real], confidence[real], part.query_y[real], group))
        bar.update(len(part))
    joined = {name: calibration.concatenate(parts) for name, parts in rows.items()}
    return {name: np.concatenate(parts) for name, parts in scores.items()}, joined


def _figures(
    metric: str, answers: np.ndarray, part: EpisodeBatch, features: TaskFeatures | SpanFeatures | GenerationFeatures
) -> np.ndarray:
    """(b,) figure of answers (b, q, ...) to episodes of one task; NaN where there is none."""
    figures = np.full(len(part), np.nan)
    for i, (given, right) in enumerate(features.judged(answers, part, metric)):
        if all(text is not None for text in given) if answers.dtype == object else not np.isnan(answers[i]).any():
            figures[i] = METRICS[metric](given, right)
    return figures
