"""``metatext predict``."""

from __future__ import annotations

from pathlib import Path

from ..adapted import AdaptedModel
from ..command_settings import PredictData, Settings
from ..launch import best_device
from ..rows import DataError
from .asked import check_predictions, read_asked, write_predictions
from .common import log


def main(settings: Settings) -> None:
    """A saved classifier + a file of rows -> predictions."""
    log()
    data = settings[PredictData]
    if data.predict is None:
        raise DataError("the file of rows to classify is missing: metatext predict CLASSIFIER FILE")
    predictions = data.predictions or f"{Path(data.predict).stem}.predictions.csv"
    check_predictions(predictions, data.predict)
    classifier = AdaptedModel.from_pretrained(data.model).to(best_device())
    asked = read_asked(data, classifier.kind, bool(classifier.pairs), classifier.columns)
    write_predictions(classifier, asked, data.max_risk, predictions)
