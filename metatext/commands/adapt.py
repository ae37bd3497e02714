"""``metatext adapt``."""

from __future__ import annotations

from ..command_settings import AdaptData, Settings
from ..kinds import KINDS
from ..rows import DataError
from .asked import as_classes, check_output, load_examples, read_asked, saved, write_predictions
from .common import load_model, log, of_shots


def main(settings: Settings) -> None:
    """Labelled examples + a head -> a saved classifier, and predictions for a second file."""
    log()
    data = settings[AdaptData]
    if data.examples is None:
        raise DataError("--examples is missing: a csv or jsonl file with a text and a label per row")
    predictions = check_output(data)
    task = load_examples(data, data.examples, data.split, data.kind)
    model = load_model(data.model)
    if data.kind is None and task.kind == "regression":
        if task.kind not in model.kinds:
            task = as_classes(data, task)
        elif data.label_names:
            task = load_examples(data, data.examples, data.split, task.kind)
    asked = read_asked(data, task.kind, task.is_pair, task.input_columns)
    classifier = model.adapt(task)
    classifier.save_pretrained(data.output_dir)
    shape = f" of {len(task.labels)} classes" if KINDS[task.kind].column == "label" else ""
    shape = " of scores from {:g} to {:g}".format(*task.labels) if KINDS[task.kind].scored else shape
    shape = " of texts to write" if KINDS[task.kind].written else shape
    with saved(data, predictions):
        print(f"{of_shots(len(task), by_class=False)}{shape} -> {data.output_dir}")
        if asked is not None:
            write_predictions(classifier, asked, data.max_risk, predictions)
