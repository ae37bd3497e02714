"""What config.json and model.safetensors of a classifier hold of its task, beside its model (`saved`): written, and read again, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .columns import INPUTS, Columns
from .kinds import KINDS
from .representation import Support
from .residual import residual_shapes
from .saved import ENCODER, LANGUAGE
from .settings import Names, convert
from .storage import StorageError

if TYPE_CHECKING:
    from .adapted import AdaptedModel

SUPPORT, PARAMS = "support.", "params."  # prefixes in model.safetensors of the examples and of what gradient steps added


def describe_task(model: AdaptedModel) -> dict[str, Any]:
    """What config.json says of a task."""
    task = {"kind": model.kind, "labels": model.labels, "label_names": list(model.label_names), "pairs": model.pairs}
    task |= {"scale": list(model.scale)} if KINDS[model.kind].scored else {}
    task |= {"columns": model.columns} if model.columns else {}
    return task | ({"finetuning": model.finetuning} if model.finetuning else {})


def task_tensors(model: AdaptedModel) -> dict[str, Tensor]:
    """All that a classifier needs: its head, what was trained of the encoder and of the language model, what gradient steps added, the
    support."""
    tensors = {f"{model.kind}.{name}": tensor for name, tensor in model.head.state_dict().items()}
    tensors |= {f"{ENCODER}{name}": tensor for name, tensor in model.encoder.learned.items()}
    if model.language is not None:
        tensors |= {f"{LANGUAGE}{name}": tensor for name, tensor in model.language.learned.items()}
    tensors |= {f"{PARAMS}{name}": tensor for name, tensor in model.residual.items()}
    return tensors | {f"{SUPPORT}{item.name}": getattr(model.support, item.name) for item in dataclasses.fields(Support)}


def without_task(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `task_tensors` that are the model's, as `MetaModel.restore` takes them."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith((SUPPORT, PARAMS))}


@dataclass(frozen=True)
class SavedTask:
    """What a classifier's folder holds besides its model; by the names of the arguments of `AdaptedModel`."""

    support: Support
    labels: Sequence
    label_names: Sequence[str | None]
    kind: str
    pairs: bool | None
    scale: tuple[float, float]
    finetuning: Mapping[str, Any] | None
    residual: Mapping[str, Tensor]
    columns: Columns


def read_task(config: Mapping[str, Any], tensors: Mapping[str, Tensor], kinds: Sequence[str], dim: int, where: str) -> SavedTask:
    """The task of a classifier.

    Args:
        config: of config.json.
        tensors: of model.safetensors.
        kinds: of the model.
        dim: length of the encoder's features.
        where: for messages.

    Raises:
        StorageError: a part is missing or wrong, or parts do not fit each other.
    """
    try:
        support = Support(**{item.name: tensors[f"{SUPPORT}{item.name}"] for item in dataclasses.fields(Support)})
        task = config["task"]
        labels, names, kind, pairs = (task[key] for key in ("labels", "label_names", "kind", "pairs"))
        scale = tuple(map(float, task.get("scale", (0.0, 1.0))))
        columns = {role: convert(named, Names, f"columns: {role}") for role, named in dict(task.get("columns", {})).items()}
    except KeyError as error:
        raise StorageError(f"{where} is incomplete: {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise StorageError(f"{where}/config.json is damaged: {error}") from None
    if kind not in kinds or len(scale) != 2:
        raise StorageError(f"{where}/config.json is damaged: its task is of kind {kind!r}, its head for {', '.join(kinds)}")
    roles = INPUTS.get(kind, ("text", "text_pair"))
    if other := next((role for role in columns if role not in roles), None):
        raise StorageError(f"{where}/config.json is damaged: its task has columns for {other!r}, expected {' and '.join(roles)}")
    dims = 4 if kind == "span" else 3
    if support.y.ndim != dims:
        raise StorageError(f"{where}/model.safetensors: support.y has {support.y.ndim} dimensions, expected {dims}")
    w, labelled = support.y.shape[-1], KINDS[kind].column == "label"
    if not len(labels) == len(names) or len(labels) not in ((w,) if labelled else (0, 2)):
        raise StorageError(
            f"{where}/config.json does not fit its weights: {len(labels)} labels and {len(names)} label_names for {w} classes"
        )
    rows = tuple(support.y.shape[:-1])  # of spans (1, s, t)
    c = 0 if kind == "span" else w
    shapes = {"x": (*rows, dim), "y": (*rows, w), "label_x": (1, c, dim), "task_x": (1, dim)}
    shapes |= {"row_mask": rows, "class_mask": (1, c), "label_mask": (1, c), "task_mask": (1,)}
    for name, shape in shapes.items():
        tensor = getattr(support, name)
        if tuple(tensor.shape) != shape or (tensor.dtype == torch.bool) != name.endswith("mask"):
            raise StorageError(
                f"{where}/model.safetensors: support.{name} is {tuple(tensor.shape)} {tensor.dtype}, expected {shape}"
            )
    residual = {name.removeprefix(PARAMS): tensor for name, tensor in tensors.items() if name.startswith(PARAMS)}
    expected = residual_shapes(w, dim) if residual else {}
    found = {name: tuple(tensor.shape) for name, tensor in residual.items()}
    if found != expected or not all(tensor.isfinite().all() for tensor in residual.values()):
        raise StorageError(f"{where}/model.safetensors: fine-tuned parameters are {found}, expected finite {expected}")
    return SavedTask(support, labels, names, kind, pairs, scale, task.get("finetuning"), residual, columns)
