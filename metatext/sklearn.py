"""TextClassifier: a head as an unfitted scikit-learn estimator over texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .adapted import AdaptedModel
from .config import FinetuneConfig
from .finetuning import finetune as finetune_model
from .model import MetaModel, load_head
from .rows import DataError, check_label_names


class TextClassifier(ClassifierMixin, BaseEstimator):
    """A meta-network head as a classifier of texts: ``fit`` is one forward pass, with ``finetune`` also gradient steps.

    It stands in pipelines, cross-validation and grid searches, also one over heads: ``GridSearchCV(TextClassifier(), {"model": ["gp", folder]})``.

    Args:
        model: a saved head (a folder, one that comes with metatext, or a repo on the Hub), a `MetaModel`, which copies made by ``clone`` share, or the name of a head, untrained on
            the embedded encoder.
        label_names: {label: text that the encoder reads}, labels without examples among them, or a list of labels that are texts; None: labels that are texts name themselves.
        finetune: how to fine-tune after adapting, see `metatext.finetune`; None: not at all.

    Attributes:
        classes_: (w,) labels, sorted, those of ``label_names`` where there are any; the columns of ``predict_proba``.
        adapted_: the `AdaptedModel` that answers.
    """

    def __init__(
        self,
        model: str | Path | MetaModel = "metatext-minilm-general",
        label_names: Mapping[Any, str] | Sequence[str] | None = None,
        finetune: FinetuneConfig | None = None,
    ):
        self.model = model
        self.label_names = label_names
        self.finetune = finetune

    def fit(self, X: Sequence[str | tuple[str, str]], y: Sequence) -> TextClassifier:
        """Adapt to n texts, or pairs of texts, and their labels.

        Raises:
            DataError: see `MetaModel.adapt`; a label is not among ``label_names``.
        """
        if isinstance(self.model, MetaModel):
            model = self.model
        elif isinstance(self.model, (str, Path)):
            model = load_head(str(self.model))
        else:
            raise DataError(
                f"model: expected a folder, a repo on the Hub, the name of a head or a MetaModel, got {type(self.model).__name__}"
            )
        names = check_label_names(self.label_names)
        names = None if names is None else dict(sorted(names.items()))
        rows = _rows(X)
        if self.finetune is None:
            self.adapted_: AdaptedModel = model.adapt(rows, y, label_names=names)
        else:
            self.adapted_ = finetune_model(model, rows, y, self.finetune, label_names=names)
        self.classes_ = np.array(self.adapted_.labels)
        return self

    def predict(self, X: Sequence[str | tuple[str, str]]) -> np.ndarray:
        """(n,) labels.

        Raises:
            NotFittedError: ``fit`` was not called.
        """
        best = self.predict_proba(X).argmax(1)  # says first where there is nothing fitted
        return self.classes_[best]

    def predict_proba(self, X: Sequence[str | tuple[str, str]]) -> np.ndarray:
        """(n, w) probabilities, columns in the order of ``classes_``.

        Raises:
            NotFittedError: ``fit`` was not called.
        """
        check_is_fitted(self, "adapted_")
        return self.adapted_.predict_proba(_rows(X))

    def __sklearn_clone__(self) -> TextClassifier:
        return type(self)(**self.get_params(deep=False))  # a model is never changed by fit: no copy of an encoder for every fold

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _rows(X: Any) -> Any:
    """Texts as plain strings; a column of a data frame is a sequence of them."""
    return X.tolist() if hasattr(X, "tolist") else X
