"""AdaptedModel: the model of one task, made by a head in one forward pass."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .answering import answer_rows, answer_table, best_answers, risk_of
from .changes import add_class, add_examples, remove_class
from .columns import Columns
from .hub import push_folder, read_pretrained
from .kinds import KINDS
from .language import ANSWER_TOKENS
from .loading import Access
from .model import MetaModel
from .pipeline import answer_as_pipeline
from .representation import Support
from .rows import DataError, check_inputs, check_questions, check_whole
from .saved_task import describe_task, read_task, task_tensors, without_task
from .scoring import evaluate
from .storage import write_folder

if TYPE_CHECKING:
    from .encoder import Encoder

CONTENT = "adapted"


class AdaptedModel:
    """What `MetaModel.adapt` returns. It keeps features of the examples, never their texts.

    Attributes:
        labels: in the order of the columns of `predict_proba`; of a regression the two ends of the scale, [] where
            they are not known.
        label_names: per class the text that the encoder read, or None.
        kind: kind of task.
        pairs: whether the examples were pairs of texts; None when there were no examples.
        encoder: what reads the texts, frozen: as the model's was when it adapted, or with weights that this task has learned.
        language: what writes the answers of a task of kind generation, frozen too; else None.
        scale: of a regression what the scores were standardised by, see `targets.scale_of`.
        risk_curve: the model's `RiskCurve` when it adapted, or None.
        threshold: of several labels those with at least this probability are the answer; the model's when it adapted, and what a caller sets it to.
        columns: what a row that is asked is made of, as the task of its examples had it: role -> column of its source, several where their texts were
            joined; {} where that is not known. Commands read the columns of these names where none are named.
        params: task parameters, by name; of a fine-tuned model also those of `residual.corrected`.
        finetuning: what `finetune` measured, and whether its result was kept; None where it was not called.
    """

    def __init__(
        self,
        model: MetaModel,
        support: Support,
        labels: Sequence,
        label_names: Sequence[str | None],
        kind: str,
        pairs: bool | None,
        encoder: Encoder | None = None,
        scale: tuple[float, float] = (0.0, 1.0),
        residual: Mapping[str, torch.Tensor] | None = None,
        finetuning: Mapping[str, Any] | None = None,
        columns: Columns | None = None,
    ):
        self.model = model
        self.support = support
        self.labels = list(labels)
        self.label_names = tuple(label_names)
        self.kind = kind
        self.pairs = pairs
        # values: training the model further does not reach them
        self.head = copy.deepcopy(model.heads[kind]).eval().requires_grad_(False)
        self.encoder = encoder or model.encoder.frozen()
        self.language = model.language.frozen() if KINDS[kind].written else None
        self.scale = scale
        self.risk_curve = model.risk if KINDS[kind].by_class else None
        self.threshold = model.threshold
        self.described = {**copy.deepcopy(model.describe()), "kinds": [kind]}
        self.residual = dict(residual or {})
        self.finetuning = finetuning
        self.columns = dict(columns or {})
        self.params = self._make_params()

    @torch.no_grad()
    def _make_params(self) -> dict[str, torch.Tensor]:
        parameter = next(self.head.parameters())
        with torch.autocast(parameter.device.type, enabled=False):
            made = self.head.adapt(self.support.to(parameter.device).to(parameter.dtype))
            return {**made, **{name: tensor.to(parameter) for name, tensor in self.residual.items()}}

    @property
    def is_finetuned(self) -> bool:
        """Whether it holds what gradient steps on its own task have learned."""
        return bool(self.residual)

    @property
    def threshold(self) -> float:
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < 1:
            raise DataError(f"threshold: expected a probability between 0 and 1, got {value!r}")
        self._threshold = float(value)

    def __repr__(self) -> str:
        return f"AdaptedModel({self.kind}, labels={self.labels}, head={self.model.head_config.name!r}, {self.support.x.shape[1]} examples)"

    def predict(
        self, inputs: Sequence[str | tuple[str, str]], max_risk: float | None = None, max_new_tokens: int = ANSWER_TOKENS
    ) -> list[Any] | np.ndarray:
        """An answer for each row.

        Args:
            inputs: texts, or pairs of texts if the examples were pairs.
            max_risk: of a classification: answer None where the expected `risk` of the answer is above this.
            max_new_tokens: of generation: tokens of a text at most.

        Returns:
            Of a classification the most probable label of each row, as the caller gave it; of a multilabel task lists of the labels
            whose probability is at least `threshold`; of a regression numpy (n,) scores on the task's own scale, between its ends where they
            are known; of spans dicts: ``text``, ``start`` and ``end`` (characters of the context) and ``score``, its probability in its
            part of the context; where that there is none is likelier, this one's probability, with the text "" and both places 0; of
            generation the texts, token by token the most probable.

        Raises:
            DataError: see `predict_table`.
        """
        table, column = self.predict_table(inputs, max_risk, max_new_tokens=max_new_tokens), KINDS[self.kind].column
        return table[column] if column else [dict(zip(table, row)) for row in zip(*table.values())]

    def predict_table(
        self,
        inputs: Sequence[str | tuple[str, str]],
        max_risk: float | None = None,
        progress: bool = False,
        max_new_tokens: int = ANSWER_TOKENS,
    ) -> dict[str, Any]:
        """All that is said of each row, in one pass over the texts.

        Args:
            inputs: texts, or pairs of texts if the examples were pairs.
            max_risk: see `predict`.
            progress: show a bar.
            max_new_tokens: see `predict`.

        Returns:
            Of a classification ``label``: list of n labels; ``probability`` of that label, ``confidence`` and ``risk``: numpy (n,). Of a
            multilabel task ``label``: list of n lists, and ``probability``: those of these labels. Of a regression ``score``: numpy (n,).
            Of spans lists ``text``, ``start``, ``end`` and ``score``, see `predict`. Of generation ``text``: list of n.

        Raises:
            DataError: ``max_risk`` is no share, or the task no classification; the inputs are not what the examples were.
        """
        if max_risk is not None and not (isinstance(max_risk, Real) and 0 <= max_risk <= 1):
            raise DataError(f"max_risk: expected a share of errors between 0 and 1, got {max_risk!r}")
        if max_risk is not None:
            self._need("max_risk", KINDS[self.kind].by_class)
        return answer_table(self, inputs, max_risk, max_new_tokens, progress)

    def answers(self, inputs: Sequence[Mapping], n: int = 5) -> list[list[dict[str, Any]]]:
        """Of a span task: the n-best answers to each question, best first, as `predict` gives the best; whether there is any is not
        judged. Fewer where a context has no more."""
        self._need("answers", self.kind == "span")
        check_whole(n, "n")
        return best_answers(self, check_questions(inputs), n)

    def _need(self, what: str, given: bool) -> None:
        if not given:
            hint = "; use predict" if what == "a call" else ""
            raise DataError(f"{what}: there is none for a task of kind {self.kind}{hint}")

    def risk(self, inputs: Sequence[str | tuple[str, str]]) -> np.ndarray:
        """(n,) probability that the answer of `predict` is wrong, the row belonging to none of the labels included.

        As often as such answers were wrong on the tasks that meta-training held out, where a fifth of the rows belonged to no
        label; 1 - (probability of the answer) x `confidence` where the head was trained without such tasks.
        """
        self._need("risk", KINDS[self.kind].by_class)
        return risk_of(self, *answer_rows(self, inputs))

    def predict_proba(self, inputs: Sequence[str | tuple[str, str]]) -> np.ndarray:
        """(n, w) probabilities of the labels, given that one of them is right, of a multilabel task independent; columns in the order
        of `labels`."""
        self._need("predict_proba", KINDS[self.kind].column == "label")
        return answer_rows(self, inputs)[0]

    def confidence(self, inputs: Sequence[str | tuple[str, str]]) -> np.ndarray:
        """(n,) probability that the row belongs to any of the labels."""
        self._need("confidence", KINDS[self.kind].column == "label")
        return answer_rows(self, inputs)[1]

    def check_rows(self, inputs: Sequence) -> list:
        """Texts, or pairs of texts, as a list.

        Raises:
            DataError: they are not, or not what the examples were.
        """
        rows = check_inputs(inputs)
        if rows and self.pairs is not None and isinstance(rows[0], tuple) != self.pairs:
            hint = "; one pair is written [(first, second)]" if self.pairs else ""
            raise DataError(
                f"inputs: the examples were {'pairs of texts' if self.pairs else 'single texts'}, these rows are not{hint}"
            )
        return rows

    __call__ = answer_as_pipeline
    add_class, add_examples, remove_class, evaluate = add_class, add_examples, remove_class, evaluate

    def with_support(self, support: Support, **values: Any) -> AdaptedModel:
        """The same head and encoder adapted to another support: a new model, with these of its attributes."""
        made = copy.copy(self)
        made.head, made.support = copy.deepcopy(self.head), support
        for name, value in values.items():
            setattr(made, name, value)
        made.params = made._make_params()
        return made

    def to(self, device: torch.device | str) -> AdaptedModel:
        """Move encoder, head and task parameters to a device; returns itself. The head's model and an encoder that it shares with other
        classifiers move too."""
        self.model.to(device)
        self.encoder.to(device)
        if self.language is not None:
            self.language.to(device)
        self.head.to(device)
        self.params = {name: tensor.to(device) for name, tensor in self.params.items()}
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (head, support features, what was trained of the encoder; no texts, but the names of their columns) to ``folder``,
        atomically."""
        described = {**self.described, "threshold": self.threshold}  # a caller may have set it
        write_folder(folder, {"content": CONTENT, "task": describe_task(self), **described}, task_tensors(self))

    push_to_hub = push_folder

    @classmethod
    def from_pretrained(
        cls,
        folder_or_repo_id: str | Path,
        encoder: Encoder | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> AdaptedModel:
        """Load what `save_pretrained` wrote, from a folder or from a repo on the Hub; predictions are the same.

        Args:
            folder_or_repo_id, revision, token, cache_dir, local_files_only: see `MetaModel.from_pretrained`.
            encoder: reuse this one instead of loading; its fingerprint must be the recorded one.

        Raises:
            StorageError, HubError, EncoderError: see `MetaModel.from_pretrained`.
        """
        access = Access(token, cache_dir, local_files_only)
        config, tensors, folder = read_pretrained(folder_or_repo_id, CONTENT, revision, access)
        model = MetaModel.restore(config, without_task(tensors), folder, encoder, access=access)
        task = read_task(config, tensors, model.kinds, model.encoder.dim, folder)
        return cls(model, **vars(task))
