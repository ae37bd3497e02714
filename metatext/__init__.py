"""metatext: meta-learning on text, the Hugging Face way.

Importing this package loads none of numpy, torch, transformers, datasets or scikit-learn: every public name below is
fetched from its module the first time it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_PUBLIC = {
    "EncoderConfig": "config",
    "LanguageConfig": "config",
    "EpisodeConfig": "config",
    "HeadConfig": "config",
    "TrainConfig": "config",
    "FinetuneConfig": "config",
    "ConfigError": "settings",
    "Task": "tasks",
    "DataError": "rows",
    "load_task": "task_loading",
    "load_tasks": "corpora",
    "Encoder": "encoder",
    "LanguageModel": "language",
    "FeatureStore": "store",
    "MetaModel": "model",
    "AdaptedModel": "adapted",
    "meta_train": "training",
    "TrainResult": "training",
    "finetune": "finetuning",
    "evaluate_tasks": "evaluation",
    "Report": "report",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'metatext' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


if TYPE_CHECKING:
    from .adapted import AdaptedModel
    from .config import EncoderConfig, EpisodeConfig, FinetuneConfig, HeadConfig, LanguageConfig, TrainConfig
    from .corpora import load_tasks
    from .encoder import Encoder
    from .evaluation import evaluate_tasks
    from .finetuning import finetune
    from .language import LanguageModel
    from .model import MetaModel
    from .report import Report
    from .rows import DataError
    from .settings import ConfigError
    from .store import FeatureStore
    from .task_loading import load_task
    from .tasks import Task
    from .training import TrainResult, meta_train
