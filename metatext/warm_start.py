"""Training that begins with saved weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .model import MetaModel
from .settings import ConfigError
from .storage import digest


def warm_start(model: MetaModel, folders: Sequence[str]) -> None:
    """Put the weights of saved models in place, of several their mean ("model soups", Wortsman et al. 2022).

    Args:
        model: what training begins with; changed in place, and its ``notes`` say where the weights come from.
        folders: of the saved models, or names that load them; one whose encoder was frozen gives the head alone.

    Raises:
        ConfigError: a model has another head or encoder than ``model``, or they do not hold the same weights.
        StorageError, HubError: one cannot be loaded.
    """
    every = [_saved_weights(model, folder) for folder in folders]
    for folder, tensors in zip(folders[1:], every[1:]):
        if other := sorted(tensors.keys() ^ every[0].keys()):
            raise ConfigError(
                f"warm_start: {folders[0]} and {folder} do not hold the same weights, {other[0]} for one; the mean is taken of models of one "
                f"tuning and the same kinds of task"
            )
    tensors = {name: sum(weights[name] for weights in every) / len(every) for name in every[0]}
    model.load_tensors({**model.tensors(), **tensors})
    names = ", ".join(Path(folder).name for folder in folders)
    model.notes = {"warm_start": {"name": names, "weights": digest(tensors)}}  # a run that goes on began with the same


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
