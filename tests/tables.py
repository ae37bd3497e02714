"""Small tables, written in every format."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

ROWS = [
    {"text": "Where is my parcel?", "label": "delivery"},
    {"text": "I want my money back.", "label": "refund"},
    {"text": "The box came empty.", "label": "delivery"},
]
PAIR = [{"premise": "A man sleeps.", "hypothesis": "A man is awake.", "label": "contradiction"}]
OTHER_KINDS = {
    "span": [{"context": "It is red.", "question": "What colour?", "answers": {"text": ["red"], "answer_start": [6]}}],
    "generation": [{"input": "a b", "target": "b a"}],
}


@pytest.fixture(scope="module", autouse=True)
def arrow_cache(tmp_path_factory):
    """What `datasets` prepares stays out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


def write(path, rows=ROWS):
    """``rows`` in the format that the name of ``path`` asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = Dataset.from_list(rows).to_pandas()
    match path.suffix:
        case ".csv":
            table.to_csv(path, index=False)
        case ".tsv":
            table.to_csv(path, index=False, sep="\t")
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        case ".parquet":
            table.to_parquet(path)
    return path


def raw(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def rows_of(labels, **more):
    return [{"text": f"text {i}", "label": label, **{k: v[i] for k, v in more.items()}} for i, label in enumerate(labels)]
