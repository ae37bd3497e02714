"""The rivals that take gradient steps on every task: SetFit as it is published, and a pretrained encoder fine-tuned to find answers."""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .config import HeadConfig
from .encoder import Encoder
from .episodes import EpisodeBatch
from .kinds import KINDS
from .model import MetaModel
from .settings import ConfigError
from .spans import SpanFeatures, SpanTexts, read_states

Texts = Sequence[str] | Sequence[tuple[str, str]]
Fit = Callable[[Texts, np.ndarray, int, Sequence[str | None]], Callable[[Texts], Tensor]]
"""(s examples, their ways (s,), w, the names of w classes) -> a function of q rows that gives (q, w) probabilities."""

TEMPLATE, TEMPLATED = "This sentence is {}", 8  # of `setfit`: as its documentation adds them to few examples


def setfit(encoder: Encoder) -> Fit:
    """Contrastive fine-tuning of the encoder, then a logistic regression on its features (Tunstall et al. 2022).

    One epoch over pairs of examples: 20 pairs of one class and 20 of two per example, batches of 16, learning rate 2e-5; the
    package's defaults otherwise. Every task starts from the encoder's own weights, and draws from seed 0.

    Where no class has more than one example, every class that has a name gets eight more, "This sentence is <name>", as the
    package's documentation adds them to few examples (``get_templated_dataset(..., sample_size=8)``, which it finds best). The
    two texts of a pair are read as one, with what the tokenizer puts between them in its format for pairs.

    Raises:
        ConfigError: the package setfit is not installed.
    """
    if importlib.util.find_spec("setfit") is None:
        raise ConfigError("the baseline 'setfit' needs the package setfit; install it with: pip install \"metatext[bench]\"")
    start, between = _sentence_transformer(encoder), between_pairs(encoder)

    def as_texts(rows: Texts) -> list[str]:
        return [encoder.prompt + (between.join(row) if isinstance(row, tuple) else row) for row in rows]

    def fit(examples: Texts, ways: np.ndarray, w: int, names: Sequence[str | None]) -> Callable[[Texts], Tensor]:
        from datasets import Dataset
        from setfit import SetFitModel, Trainer, TrainingArguments
        from setfit import logging as setfit_logging
        from sklearn.linear_model import LogisticRegression
        from transformers import PrinterCallback, ProgressCallback

        setfit_logging.set_verbosity_error()
        more = templated(ways, names)
        texts = [*as_texts(examples), *(encoder.prompt + text for text, _ in more)]
        table = Dataset.from_dict({"text": texts, "label": [*ways.tolist(), *(way for _, way in more)]})
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

        def predict(rows: Texts) -> Tensor:
            known = model.predict_proba(as_texts(rows), as_numpy=True, show_progress_bar=False)
            out = torch.zeros(len(rows), w)
            out[:, torch.as_tensor(model.model_head.classes_)] = torch.as_tensor(known).float()
            return out

        return predict

    return fit


def templated(ways: np.ndarray, names: Sequence[str | None]) -> list[tuple[str, int]]:
    """The examples (text, way) that `setfit` makes of the names of classes: `TEMPLATED` for each, where no class has more than
    one of its own."""
    if np.bincount(ways).max() > 1:
        return []
    return [(TEMPLATE.format(name), way) for way, name in enumerate(names) if name for _ in range(TEMPLATED)]


def between_pairs(encoder: Encoder) -> str:
    """What its tokenizer puts between the two texts of a pair, "[SEP]" for one; a blank where it puts nothing there."""
    read = encoder.tokenizer("a", "b")
    of = read.sequence_ids(0)
    last, first = len(of) - 1 - of[::-1].index(0), of.index(1)
    return "".join(encoder.tokenizer.convert_ids_to_tokens(read["input_ids"][last + 1 : first])) or " "


SPAN_STEPS, SPAN_ROWS = 80, 8  # of `fine_tuned_spans`


def fine_tuned_spans(encoder: Encoder) -> Callable[[SpanFeatures, EpisodeBatch], Tensor]:
    """Every weight of a pretrained encoder, and start and end vectors from a random start, fine-tuned on the support of each episode alone:
    the usual way to extractive question answering (Devlin et al. 2019, section 4.2), without meta-training.

    `SPAN_STEPS` steps of AdamW on `SPAN_ROWS` examples each, learning rate 1e-4 (1e-2 of the vectors), linear decay.

    Args:
        encoder: is loaded anew as it was pretrained.

    Returns:
        (tasks, b episodes) -> (b, v, t, 3) scores of all windows of the query, NaN for an episode without examples.
    """
    settings = replace(encoder.config, tuning="full", dropout=0.0)
    whole = Encoder.load(settings, expected_fingerprint=encoder.fingerprint, access=encoder.access)
    model = MetaModel.from_encoder(whole, HeadConfig("gp"))
    model.keep_kinds(["span"])
    model.to(encoder.device)
    start = copy.deepcopy(model.state_dict())

    def fit(source: SpanFeatures, batch: EpisodeBatch) -> Tensor:
        rows, bare = batch.support[batch.support >= 0], batch.without_support()
        model.load_state_dict(start)
        groups = [{"params": model.heads.parameters(), "lr": 1e-2}, {"params": model.encoder.parameters(), "lr": 1e-4}]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, SPAN_STEPS)
        rng = np.random.default_rng(0)
        model.train()
        with torch.enable_grad():
            for _ in range(SPAN_STEPS):
                taken = rng.choice(rows, min(SPAN_ROWS, len(rows)), replace=False)[None]
                asked = replace(bare, query=taken, query_y=np.zeros_like(taken), outside=np.zeros_like(taken, bool))
                episode = model.read(SpanTexts(source, asked, model.device))
                loss = KINDS["span"].loss(model(episode), episode.query_y, episode.query_mask, episode.outside).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        model.eval()
        with torch.no_grad():
            support, query, _ = source.windows_of(bare, every=True)
            states = read_states(source, model.encoder, bare, support, query)
            return model(source.assemble(bare, states, model.device, every=True)).values

    def answer(source: SpanFeatures, batch: EpisodeBatch) -> Tensor:
        query = source.windows_of(batch, every=True)[1]
        t = source.windows.places(query).shape[-1]
        out = torch.full((*query.shape, t, 3), torch.nan)
        for i in range(len(batch)):
            if (batch.support[i] >= 0).any():
                found = fit(source, batch[i : i + 1]).cpu()
                out[i] = torch.finfo(found.dtype).min / 4  # an episode alone has less padding
                out[i, : found.shape[1], : found.shape[2]] = found[0]
        return out

    return answer


def _sentence_transformer(encoder: Encoder):
    """The encoder as a sentence-transformers model with weights of its own, which knows no pooling "words" and takes the mean."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    with tempfile.TemporaryDirectory() as folder:  # saved and loaded: our copy stays frozen and as it is
        encoder.backbone.save_pretrained(Path(folder))
        encoder.tokenizer.save_pretrained(folder)
        words = modules.Transformer(folder, max_seq_length=encoder.max_length)
    mode = {"last": "lasttoken", "words": "mean"}.get(encoder.pooling, encoder.pooling)
    pooling = modules.Pooling(words.get_embedding_dimension(), pooling_mode=mode)
    return SentenceTransformer(modules=[words, pooling, modules.Normalize()], device=str(encoder.device))
