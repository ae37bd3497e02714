"""SetFit as it is published, on a copy of our encoder: the rival that takes gradient steps on every task."""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .config import ConfigError

if TYPE_CHECKING:
    from .encoder import Encoder

Fit = Callable[[Sequence[str], np.ndarray, Sequence[str], int], Tensor]
"""(texts of s examples, their ways (s,), texts of q rows, w) -> (q, w) probabilities."""


def setfit(encoder: Encoder) -> Fit:
    """Contrastive fine-tuning of the encoder, then a logistic regression on its features (Tunstall et al. 2022).

    One epoch over pairs of examples: 20 pairs of one class and 20 of two per example, batches of 16, learning rate 2e-5; the
    package's defaults otherwise. Every task starts from the encoder's own weights, and draws from seed 0.

    Raises:
        ConfigError: the package setfit is not installed.
    """
    if importlib.util.find_spec("setfit") is None:
        raise ConfigError("the baseline 'setfit' needs the package setfit; install it with: pip install \"metatext[bench]\"")
    start = _sentence_transformer(encoder)

    def fit(examples: Sequence[str], ways: np.ndarray, rows: Sequence[str], w: int) -> Tensor:
        from datasets import Dataset
        from setfit import SetFitModel, Trainer, TrainingArguments
        from setfit import logging as setfit_logging
        from sklearn.linear_model import LogisticRegression
        from transformers import PrinterCallback, ProgressCallback

        setfit_logging.set_verbosity_error()
        prompt = encoder.prompt
        table = Dataset.from_dict({"text": [prompt + text for text in examples], "label": ways.tolist()})
        model = SetFitModel(model_body=copy.deepcopy(start), model_head=LogisticRegression())
        with tempfile.TemporaryDirectory() as folder, torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package's own trainer, about memory pinning
            arguments = TrainingArguments(
                output_dir=folder,
                batch_size=16,
                num_epochs=1,
                num_iterations=20,
                body_learning_rate=2e-5,
                seed=0,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                show_progress_bar=False,
            )
            with torch.random.fork_rng(devices=[]):
                trainer = Trainer(model=model, args=arguments, train_dataset=table)
                for shown in (ProgressCallback, PrinterCallback):  # a bar per episode would drown the rest
                    trainer.remove_callback(shown)
                trainer.train()
            known = model.predict_proba([prompt + text for text in rows], as_numpy=True, show_progress_bar=False)
        out = torch.zeros(len(rows), w)
        out[:, torch.as_tensor(model.model_head.classes_)] = torch.as_tensor(known).float()
        return out

    return fit


def _sentence_transformer(encoder: Encoder):
    """The encoder as a sentence-transformers model with weights of its own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    with tempfile.TemporaryDirectory() as folder:  # saved and loaded: our copy stays frozen and as it is
        encoder.backbone.save_pretrained(Path(folder))
        encoder.tokenizer.save_pretrained(folder)
        words = modules.Transformer(folder, max_seq_length=encoder.max_length)
    pooling = modules.Pooling(
        words.get_embedding_dimension(), pooling_mode={"last": "lasttoken"}.get(encoder.pooling, encoder.pooling)
    )
    return SentenceTransformer(modules=[words, pooling, modules.Normalize()], device=str(encoder.device))
