"""What each command is told besides the settings of `config`: which data, which model, what to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .settings import Checked, Names, Range, option

Settings = dict[type, Any]
"""The settings of a command, by their classes."""
ENCODING = "of csv and tsv files without a byte order mark, such as cp1252 or latin-1"


@dataclass(frozen=True)
class TrainData(Checked):
    """Which tasks are trained on, chosen on and measured on."""

    tasks: tuple[str, ...] = option(
        (),
        "what to train on: corpora of tasks_dir by name, folders of corpora, Hub ids (id:config), paths; none: all of tasks_dir that is not "
        "measured on, and where there is none, starter/train",
    )
    eval_tasks: tuple[str, ...] = option(
        (), "unseen tasks that choose the best head and stop early: names among `tasks` (then held out), or further sources"
    )
    test_tasks: tuple[str, ...] = option((), "unseen tasks to measure the final head on; they choose nothing")
    tasks_dir: str | None = option(None, "folder of corpora that plain names are looked up in")
    max_rows_per_task: int | None = option(
        None, "at most so many rows of a task, in proportion to its classes; the same whatever the seed", low=10
    )
    skip_bad_rows: bool = option(False, "leave out rows that cannot be used, with a warning, instead of an error")
    encoding: str = option("utf-8", ENCODING)
    other_label_names: str | None = option(
        None,
        "YAML file {task: {label: [text, text]}} of what else the labels of tasks to train on may be called; an episode shows all first texts, "
        "or all second ones, and so on, see other_names",
    )
    warm_start: tuple[str, ...] = option(
        (),
        "saved models whose weights, head and encoder, training begins with: folders, names or Hub ids; of several their mean, "
        "`a=3 b` three parts of a and one of b",
    )
    test_heads: tuple[str, ...] = option(
        (), "heads shown beside the trained one on test_tasks: saved folders, names of released heads, repos on the Hub"
    )
    test_shots: tuple[int, ...] = option((1, 5), "shots of the table on test_tasks", empty=False)
    test_rows: tuple[int, ...] = option(
        (4, 16), "the same where labels are no classes (multilabel, regression): rows in all", empty=False
    )
    test_episodes: int = option(100, "episodes per test task and number of shots", low=2)
    cache_dir: str | None = option(None, "where features are kept; none: $METATEXT_CACHE, else the user's cache folder")


@dataclass(frozen=True)
class TestData(Checked):
    """Which heads are measured, on what, beside what."""

    model: str = option(
        "runs/metatext",
        "the main head: a saved folder, metatext-minilm-general or -intent, a repo on the Hub, or the name of a head (untrained, on the embedded encoder)",
    )
    heads: tuple[str, ...] = option(
        (),
        "further heads, each on its own encoder, named in the same ways",
    )
    tasks: tuple[str, ...] = option(
        ("starter/test",), "unseen tasks: corpora of tasks_dir by name, Hub ids (id:config), paths, 'starter/test'", empty=False
    )
    tasks_dir: str | None = option(None, "folder of corpora that plain names are looked up in")
    class_splits: str | None = option(
        None, "JSON {split: {'test': [classes]}}: each split's test classes become a task of their own"
    )
    n_way: Range = option(5, "classes per episode", low=2)
    fewer_ways: bool = option(True, "a task with fewer classes than n_way plays with all of its own")
    n_query: int = option(5, "query rows per class, or where labels are no classes, in all", low=1)
    max_rows_per_task: int | None = option(None, "at most so many rows of a task, in proportion to its classes", low=10)
    skip_bad_rows: bool = option(False, "leave out rows that cannot be used, with a warning, instead of an error")
    encoding: str = option("utf-8", ENCODING)
    shots: tuple[int, ...] = option(
        (1, 5),
        "support rows per class (where labels are no classes, in all), a table each; 0: the label names alone",
        low=0,
        empty=False,
    )
    metric: str | None = option(
        None,
        "the figure: accuracy, macro_f1 or mcc; multilabel_macro_f1 or multilabel_micro_f1; spearman, pearson or rmse; squad_f1 or "
        "squad_em, or where an answer may be that there is none, squad_v2_f1 or squad_v2_em; rouge_l or bleu; none: the first of its kind",
    )
    names: tuple[Literal["real", "numbered", "other"], ...] = option(
        ("real",),
        "label names that are read, a table each: real; numbered: 'class 1', 'class 2' ... (not at 0 shots); other: those of other_label_names",
        empty=False,
    )
    other_label_names: str | None = option(
        None,
        "YAML file {task: {label: [text, text]}} of what else labels may be called; an episode shows all first texts, or all second ones ...",
    )
    n_episodes: int = option(600, "episodes per task and number of shots (with class_splits: over all splits)", low=2)
    seed: int = option(0, "of the episodes alone", low=0)
    baselines: tuple[str, ...] = option(
        ("untrained", "label_names", "nearest_centroid", "knn", "naive_mean", "logistic_regression", "logistic_regression_names"),
        "measured on the same episodes; untrained: the head at its start, from seed 0 (a seed moves its answers to spans only), on the encoder as it was "
        "pretrained; also logistic_regression_pretrained (on the encoder before it learned) and setfit (slow; needs "
        "metatext[bench]); where labels are no classes the usual ones of the kind, fine_tuning of spans (slow), and prompted and copied of generation; none: no baseline",
    )
    reference: tuple[str, ...] = option(
        ("logistic_regression", "label_names", "ridge_regression", "without_examples", "prompted"),
        "the method that differences are to: the first of these that has an answer; none: no differences",
    )
    n_outside: int = option(
        0, "query rows per episode from the task's classes that are not in it; of spans, questions without an answer", low=0
    )
    outside: str | None = option(None, "a task whose rows belong to no class: further query rows of every episode")
    outside_rows: int | None = option(None, "how many of its rows an episode gets; none: all", low=1)
    output: str | None = option(
        None, "JSON file for the figures and the score of every episode; none: only tables (with --plot: runs/meta_test.json)"
    )
    plot: bool = option(False, "draw accuracy against shots, and errors against rows answered, beside the JSON file")
    cache_dir: str | None = option(None, "where features are kept; none: $METATEXT_CACHE, else the user's cache folder")


@dataclass(frozen=True)
class Asked(Checked):
    """Which columns of the files hold what, and which rows are asked; what adapt, finetune and predict share."""

    text_column: Names | None = option(
        None,
        "column of the text, of the question or of the input; of several columns, as subject body, each row's texts are joined in this order; "
        "none: that of a classifier's examples, where the file has it; else one is found when its name is usual",
    )
    text_pair_column: Names | None = option(
        None, "column, or columns, of the second text of a pair; or the column of the context; none: as for text_column"
    )
    label_column: str | None = option(
        None, "column of the label, of the answer or of the target, where the file has one; none: found when its name is usual"
    )
    skip_bad_rows: bool = option(False, "leave out rows that cannot be used, with a warning, instead of an error")
    encoding: str = option("utf-8", ENCODING)
    predict: str | None = option(None, "file of rows to classify (a label column is not needed)")
    max_risk: float | None = option(
        None, "leave a row without a label where its answer is more often wrong than this share", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class Labelled(Asked):
    """Which labelled examples make a classifier; what adapt and finetune share."""

    split: str | None = option(None, "which split of the examples; none: all rows of all splits")
    description: str | None = option(None, "one sentence on what the labels mean; it helps at few examples")
    label_names: tuple[str, ...] = option(
        (),
        "label=text: what the encoder reads for a label, which may be one without examples; of scores 1=text 5=text, the ends of the scale",
    )
    predictions: str | None = option(None, "csv to write the predictions to; none: predictions.csv in output_dir")


@dataclass(frozen=True)
class AdaptData(Labelled):
    """Which examples make a classifier, and what it is asked."""

    model: str = option(
        "metatext-minilm-general",
        "a saved head: a folder, metatext-minilm-general or -intent, or a repo on the Hub, owner/name; or the name of a head, gp for one (untrained, on the embedded encoder)",
    )
    examples: str | None = option(
        None,
        "labelled examples, a text and a label per row, or question, context and answers, or input and target: a csv, tsv, json, jsonl or parquet file, a folder of splits, or a data set on the Hub (id:config)",
    )
    kind: Literal["classification", "multilabel", "regression", "span", "generation"] | None = option(
        None,
        "kind of the task: one label per row, several, a score, answers in a context, or a text to write; none: found from the columns",
    )
    output_dir: str = option("runs/adapted", "folder for the adapted classifier")


@dataclass(frozen=True)
class PredictData(Asked):
    """Which classifier is asked what."""

    model: str = option("runs/adapted", "a classifier that adapt or finetune saved: a folder, or a repo on the Hub, owner/name")
    predictions: str | None = option(None, "csv to write the predictions to; none: <file>.predictions.csv in this folder")


@dataclass(frozen=True)
class FinetuneData(Labelled):
    """Which head is fine-tuned on which examples, and what the classifier is asked."""

    model: str = option(
        "metatext-minilm-general",
        "a saved head, or a classifier whose head and labels are taken: a folder, metatext-minilm-general or -intent, or a repo on the Hub, owner/name; or the name of a head, gp for one (untrained, on the embedded encoder)",
    )
    examples: str | None = option(
        None,
        "labelled examples: a csv, tsv, json, jsonl or parquet file, a folder of splits, or a data set on the Hub (id:config)",
    )
    eval_examples: str | None = option(
        None, "labelled rows that stop and judge training; none: a share of every class's examples does, see eval_share"
    )
    eval_split: str | None = option(None, "which split of them; without eval_examples, of the examples' own data set")
    output_dir: str = option(
        "runs/finetuned", "folder for the classifier, and until it is saved for a checkpoint, from which the same command goes on"
    )
    overwrite_output_dir: bool = option(False, "start anew although output_dir holds a checkpoint")


@dataclass(frozen=True)
class PushData(Checked):
    """What is pushed to which repo on the Hub."""

    model: str = option("runs/metatext", "folder of a saved head or adapted classifier; a README.md in it is the card")
    repo_id: str | None = option(None, "the repo, owner/name; it is made where there is none")
    private: bool = option(False, "a repo that is made is private; one that is there must be")
    revision: str | None = option(None, "branch to push to, made where there is none; none: the main branch")
    create_pr: bool = option(False, "open a pull request against the main branch instead")
    metrics: str | None = option(
        None,
        "JSON of the figures for the card: metrics.json of a run, or what `metatext test --output` wrote; none: the folder's own",
    )
    datasets: tuple[str, ...] = option((), "Hub ids of what it was trained on, for the card")
    license: str = option("apache-2.0", "the Hub's name of its licence, for the card")
    commit_message: str = option("Push with metatext", "title of the commit")
