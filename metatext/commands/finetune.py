"""``metatext finetune``."""

from __future__ import annotations

from ..adapted import AdaptedModel
from ..command_settings import FinetuneData, Settings
from ..config import FinetuneConfig
from ..finetuning import finetune
from ..kinds import KINDS
from ..launch import best_device
from ..model import MetaModel
from ..rows import DataError
from ..settings import ConfigError
from ..storage import ContentError
from .asked import as_classes, check_output, load_examples, read_asked, saved, write_predictions
from .common import load_model, log


def main(settings: Settings) -> None:
    """Labelled examples + a head -> a saved classifier, fine-tuned where that pays; predictions for a second file."""
    from accelerate import PartialState

    log()
    data = settings[FinetuneData]
    if data.examples is None:
        raise DataError("--examples is missing: a csv or jsonl file with a text and a label per row, or a data set on the Hub")
    predictions = check_output(data)
    if data.eval_split and not data.eval_examples and not data.split:
        raise ConfigError("eval_split: name the split of the examples too, --split; without it they are the rows of all splits")
    is_main = PartialState(cpu=best_device().type == "cpu").is_main_process
    model = load_model_or_classifier(data.model)
    task = load_examples(data, data.examples, data.split, None, getattr(model, "columns", None))
    if task.kind == "regression":
        task = as_classes(data, task)
    if not KINDS[task.kind].by_class:
        raise DataError(
            f"--examples: classifications can be fine-tuned so far, {data.examples} is of kind {task.kind}; use adapt"
        )
    asked = read_asked(data, task.kind, task.is_pair, task.input_columns)
    judges = data.eval_examples or (data.eval_split and data.examples)
    eval_task = load_examples(data, judges, data.eval_split, task.kind, task.input_columns) if judges else None
    classifier = finetune(
        model,
        task,
        config=settings[FinetuneConfig],
        eval_task=eval_task,
        output_dir=data.output_dir,
        overwrite_output_dir=data.overwrite_output_dir,
    )
    if not is_main:
        return
    with saved(data, predictions):
        print(table(classifier.finetuning))
        print(f"{len(task)} examples of {len(task.labels)} classes -> {data.output_dir} ({classifier.finetuning['kept']})")
        if asked is not None:
            write_predictions(classifier, asked, data.max_risk, predictions)


def load_model_or_classifier(name: str) -> MetaModel | AdaptedModel:
    """A head, or a classifier that is learned anew."""
    try:
        return load_model(name)
    except ContentError:
        return AdaptedModel.from_pretrained(name).to(best_device())


def table(notes: dict) -> str:
    """How the adapted and the fine-tuned model answer the held-out examples, from ``AdaptedModel.finetuning``."""
    if not notes["held_out"]:
        return f"none of {notes['rows']} examples could be held out, so nothing was learned: the model has adapted to them"
    judges = (
        f"{notes['held_out']} rows of {notes['eval_task']}"
        if "eval_task" in notes
        else f"{notes['held_out']} of {notes['rows']} examples held out"
    )
    lines = [f"{judges}:"]
    lines.append(f"{'':12}{'epoch':>7}{'loss':>9}{'accuracy':>10}{'macro F1':>10}")
    for name in ("adapted", "fine-tuned"):
        if name in notes:
            epoch, loss, right, f1 = (notes[name][key] for key in ("epoch", "loss", "accuracy", "macro_f1"))
            lines.append(f"{name:12}{epoch:7d}{loss:9.3f}{100 * right:8.1f} %{100 * f1:8.1f} %")
    return "\n".join(lines)
