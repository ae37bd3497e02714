"""Training that begins with saved weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .model import MetaModel
from .settings import ConfigError
from .storage import digest


def warm_start(model: MetaModel, entries: Sequence[str]) -> None:
    """Put the weights of saved models in place, of several their mean ("model soups", Wortsman et al. 2022).

    Args:
        model: what training begins with; changed in place, and its ``notes`` say where the weights come from.
        entries: folders of saved models, or names that load them, each with its parts of the mean at will (`mixture`); one whose encoder was
            frozen gives the head alone.

    Raises:
        ConfigError: a model has another head or encoder than ``model``, they do not hold the same weights, or an entry's parts are no number
            above 0.
        StorageError, HubError: one cannot be loaded.
    """
    mixed = mixture(entries)
    folders = [folder for folder, _ in mixed]
    every = [_saved_weights(model, folder) for folder in folders]
    for folder, tensors in zip(folders[1:], every[1:]):
        if other := sorted(tensors.keys() ^ every[0].keys()):
            raise ConfigError(
                f"warm_start: {folders[0]} and {folder} do not hold the same weights, {other[0]} for one; the mean is taken of models of one "
                f"tuning and the same kinds of task"
            )
    total = sum(parts for _, parts in mixed)
    tensors = {
        name: sum(parts * weights[name] for (_, parts), weights in zip(mixed, every, strict=True)) / total for name in every[0]
    }
    model.load_tensors({**model.tensors(), **tensors})
    names = ", ".join(entry_of(Path(folder).name, parts) for folder, parts in mixed)
    model.notes = {"warm_start": {"name": names, "weights": digest(tensors)}}  # a run that goes on began with the same


def mixture(entries: Sequence[str]) -> list[tuple[str, float]]:
    """Saved models and their parts of the mean: ``a=3 b`` is three parts of a and one of b. What exists under all of its name has one part.

    Raises:
        ConfigError: the parts are no number above 0.
    """
    found = []
    for entry in entries:
        folder, equals, said = entry.rpartition("=")
        if not equals or Path(entry).exists():  # runs/lr=0.01 is a folder
            found.append((entry, 1.0))
            continue
        try:
            parts = float(said)
        except ValueError:
            parts = 0.0
        if not folder or not 0 < parts < math.inf:
            raise ConfigError(f"warm_start: expected a saved model, or model=parts with parts above 0, got {entry!r}")
        found.append((folder, parts))
    return found


def entry_of(name: str, parts: float) -> str:
    """The entry that `mixture` reads as this."""
    return name if parts == 1 else f"{name}={parts:.15g}"  # so that a card names the same mean


def _saved_weights(model: MetaModel, folder: str) -> dict[str, Tensor]:
    """What ``model`` may take over of a saved model; kinds that this was not trained on begin anew."""
    saved = MetaModel.from_pretrained(folder)
    own, its = ({part: m.describe()[part] for part in ("head", "encoder")} for m in (model, saved))
    if not saved.encoder.is_tuned:  # its head may begin any tuning
        own["encoder"] = {key: value for key, value in own["encoder"].items() if key in its["encoder"]}
    for said in (own, its):  # the fingerprint says which encoder it is, wherever it lies; shapes are compared below
        for key in ("name", "revision", "dim", "pretrained_share", "pretrained_pooling"):
            said["encoder"].pop(key, None)
    other = [
        f"{part} {key}: {its[part].get(key)!r}, the settings say {own[part].get(key)!r}"
        for part in own
        for key in sorted({*own[part], *its[part]})
        if own[part].get(key) != its[part].get(key)
    ]
    wanted = model.heads.state_dict()
    other += [
        f"head {name}: {tuple(tensor.shape)}, the settings say {tuple(wanted[name].shape)}"
        for name, tensor in saved.heads.state_dict().items()
        if not other and name in wanted and tensor.shape != wanted[name].shape
    ]
    if other:
        raise ConfigError(f"warm_start: {folder} has {'; '.join(other)}. Begin with a model of the same head and encoder.")
    known = model.tensors()
    return {name: tensor for name, tensor in saved.tensors().items() if name in known}
