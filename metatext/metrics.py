"""Figures of merit: plain vectorised functions of (probabilities, targets), in one table."""

from __future__ import annotations

import importlib.util
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .settings import ConfigError


def accuracy(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Share of rows whose most probable class is the target; (n, w), (n,)."""
    return float((probabilities.argmax(1) == targets).mean())


def macro_f1(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the classes that occur (as target or answer) of the harmonic mean of precision and recall."""
    answers, w = probabilities.argmax(1), probabilities.shape[1]
    hits = np.bincount(targets[answers == targets], minlength=w)
    total = np.bincount(answers, minlength=w) + np.bincount(targets, minlength=w)
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def nll(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean negative log-likelihood of the targets, in nats."""
    return float(row_nll(probabilities, targets).mean(dtype=np.float64))


def brier(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the rows of the squared differences to the one-hot target, summed over the classes (Brier 1950); 0 to 2."""
    return float(row_brier(probabilities, targets).mean(dtype=np.float64))


def ece(probabilities: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the most probable class, equal-width bins (Guo et al. 2017, Eq. 3).

    With few rows even a perfectly calibrated model shows some: pool rows before reading it.
    """
    return calibration_error(probabilities.max(1), probabilities.argmax(1) == targets, bins)


def mcc(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Matthews correlation of answers and targets, -1 to 1 (Gorodkin 2004, for any number of classes); 0 where either is constant."""
    from sklearn.metrics import matthews_corrcoef

    answers = probabilities.argmax(1)
    constant = len(np.unique(answers)) < 2 or len(np.unique(targets)) < 2  # scikit-learn warns of it
    return 0.0 if constant else float(matthews_corrcoef(targets, answers))


def multilabel_macro_f1(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the labels that occur (as target or answer) of the F1 of "probability at least one half"; (n, w), (n, w) bool."""
    hits, total = _label_counts(probabilities, targets)
    return float((2 * hits[total > 0] / total[total > 0]).mean()) if total.any() else 1.0


def multilabel_micro_f1(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """F1 of "probability at least one half" over all rows and labels together; 1 where there is nothing to find and nothing found."""
    hits, total = _label_counts(probabilities, targets)
    return float(2 * hits.sum() / total.sum()) if total.any() else 1.0


def _label_counts(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per label: how often it was rightly answered, and how often it was answered plus how often it was right."""
    answers, targets = probabilities >= 0.5, targets > 0.5
    return (answers & targets).sum(0), answers.sum(0) + targets.sum(0)


def pearson(scores: np.ndarray, targets: np.ndarray) -> float:
    """Correlation of (n, 1) or (n,) scores and targets, -1 to 1; 0 where either is constant."""
    a, b = (np.asarray(x, np.float64).reshape(-1) for x in (scores, targets))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def spearman(scores: np.ndarray, targets: np.ndarray) -> float:
    """`pearson` of the ranks, equal values sharing their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(np.asarray(scores).reshape(-1)), rankdata(np.asarray(targets).reshape(-1)))


def rmse(scores: np.ndarray, targets: np.ndarray) -> float:
    """Root of the mean squared difference, in the units of the targets."""
    difference = np.asarray(scores, np.float64).reshape(-1) - np.asarray(targets, np.float64).reshape(-1)
    return float(np.sqrt((difference**2).mean()))


def squad_f1(answers: Sequence[str], targets: Sequence[Sequence[str]]) -> float:
    """Mean over the rows of the harmonic mean of precision and recall of an answer's words, of the right answer that it is closest to;
    of a row without a right answer 1 for "" (Rajpurkar et al. 2016, section 6.1; 2018)."""
    return _by_closest(_word_f1, answers, targets)


def squad_em(answers: Sequence[str], targets: Sequence[Sequence[str]]) -> float:
    """Share of answers that equal a right one but for case, punctuation, articles and blanks."""
    return _by_closest(lambda answer, right: _words(answer) == _words(right), answers, targets)


def _by_closest(figure: Callable[[str, str], float], answers: Sequence[str], targets: Sequence[Sequence[str]]) -> float:
    """Mean over the rows of a figure of the answer and the right one that it is closest to, "" where there is none."""
    pairs = zip(answers, targets, strict=True)
    return float(np.mean([max(figure(answer, right) for right in golds or [""]) for answer, golds in pairs]))


def _words(text: str) -> list[str]:
    """The words of an answer as SQuAD counts them."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def _word_f1(answer: str, right: str) -> float:
    said, wanted = _words(answer), _words(right)
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted)) if said and wanted else float(said == wanted)


def rouge_l(answers: Sequence[str], targets: Sequence[Sequence[str]]) -> float:
    """Mean over the rows of the F1 of the longest common subsequence of words with the right answer that is closest (ROUGE-L, Lin
    2004), by rouge_score without stemming."""
    check_installed("rouge_l")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    return _by_closest(lambda answer, right: scorer.score(right, answer)["rougeL"].fmeasure, answers, targets)


def bleu(answers: Sequence[str], targets: Sequence[Sequence[str]]) -> float:
    """BLEU (Papineni et al. 2002) of all rows together against all their right answers, by sacrebleu with its own settings; 0 to 1."""
    check_installed("bleu")
    from sacrebleu import corpus_bleu

    targets = [list(golds) or [""] for golds in targets]
    most = max(map(len, targets))
    streams = [[golds[i] if i < len(golds) else None for golds in targets] for i in range(most)]
    return corpus_bleu(list(answers), streams).score / 100


def check_installed(metric: str) -> None:
    """Raises `ConfigError` where the package that computes this figure is missing."""
    package = PACKAGES.get(metric)
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(f'metric {metric!r} needs the package {package}: pip install "metatext[generation]"')


PACKAGES = {"rouge_l": "rouge_score", "bleu": "sacrebleu"}
"""The packages that figures of written texts need."""

METRICS = {
    "accuracy": accuracy, "macro_f1": macro_f1, "mcc": mcc, "nll": nll, "brier": brier, "ece": ece,
    "multilabel_macro_f1": multilabel_macro_f1, "multilabel_micro_f1": multilabel_micro_f1,
    "spearman": spearman, "pearson": pearson, "rmse": rmse,
    "squad_f1": squad_f1, "squad_em": squad_em, "squad_v2_f1": squad_f1, "squad_v2_em": squad_em,
    "rouge_l": rouge_l, "bleu": bleu,
}  # fmt: skip
UNITS = ("nll", "brier", "rmse")
"""Those that are no shares, so that no table gives them in per cent."""


def as_metric(name: str) -> Any:
    """A figure as an ``evaluate.Metric``: ``as_metric("macro_f1").compute(predictions=..., references=...)["macro_f1"]``.

    Those of `METRICS` are made here, without a download. Predictions of accuracy, macro_f1 and mcc are class numbers; of nll, brier
    and ece rows of probabilities, whose references are class numbers; of several labels rows of probabilities, whose references are
    rows of 0 and 1; of scores numbers; of answers and written texts (squad, rouge_l, bleu) texts, whose references are lists of right ones, []
    where "" is right.

    Args:
        name: of `METRICS`; any other goes to ``evaluate.load``, a name on the Hub or the path of a script.

    Raises:
        ConfigError: the package that computes it is missing.
        What ``evaluate.load`` raises for a name or path that it does not find.
    """
    import evaluate  # seconds: never on a hot path
    from datasets import Features, Sequence, Value

    if name not in METRICS:
        return evaluate.load(name)
    figure, number = METRICS[name], Value("float64")
    several, chosen = name.startswith("multilabel"), name in ("accuracy", "macro_f1", "mcc")
    scores, texts = name in ("spearman", "pearson", "rmse"), name in PACKAGES or name.startswith("squad")
    check_installed(name)
    pair = (number, number) if scores else (Value("string"), Sequence(Value("string"))) if texts else None
    pair = pair or (Value("int64") if chosen else Sequence(number), Sequence(Value("int64")) if several else Value("int64"))
    features = Features(dict(zip(("predictions", "references"), pair)))

    class Figure(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=figure.__doc__, citation="", inputs_description=as_metric.__doc__, features=features
            )

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            if texts:
                return {name: figure(predictions, references)}
            answers, targets = np.asarray(predictions), np.asarray(references)
            if answers.ndim == 2 and targets.ndim == 1 and targets.max(initial=0) >= answers.shape[1]:
                raise ValueError(f"{name}: reference {targets.max()} with {answers.shape[1]} probabilities per row")
            if chosen:
                answers = np.eye(int(max(answers.max(), targets.max())) + 1)[answers]
            return {name: figure(answers, targets)}

    return Figure(keep_in_memory=True)


def row_nll(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n, w), (n,) -> (n,) negative log-likelihoods in nats; a probability below 1e-12 counts as 1e-12."""
    return -np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12))


def row_brier(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n, w), (n,) -> (n,) squared differences to the one-hot target, summed over the classes."""
    return (probabilities**2).sum(1) - 2 * probabilities[np.arange(len(targets)), targets] + 1


def calibration_error(top: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """`ece` of n answers, from their probabilities (n,) and whether they are right (n,)."""
    place = np.minimum((top * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(place, right - top, bins)).sum() / len(top))


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval by Student's t, 0 of one value."""
    return stratified_interval([values])


def stratified_interval(groups: Sequence[np.ndarray]) -> tuple[float, float]:
    """Mean of the means of several samples, and the half-width of its 95 % interval, the groups being given, not drawn.

    Student's t with as many degrees of freedom as all groups have together; a group of one value adds no width.
    """
    from scipy.stats import t

    mean = float(np.mean([np.mean(values) for values in groups]))
    freedom = sum(len(values) - 1 for values in groups)
    if not freedom:
        return mean, 0.0
    variance = sum(np.var(values, ddof=1) / len(values) for values in groups if len(values) > 1)
    return mean, float(t.ppf(0.975, freedom) * np.sqrt(variance) / len(groups))
