"""Tasks from every kind of source, and what is said when rows, columns or labels cannot be used."""

from __future__ import annotations

import errno
import json
import logging
import math
import os

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, List, Value
from datasets.exceptions import DatasetGenerationError
from tables import OTHER_KINDS, PAIR, ROWS, arrow_cache, raw, rows_of, write  # noqa: F401

from metatext.corpora import load_tasks
from metatext.inputs import load_inputs
from metatext.readings import as_scale, joined
from metatext.rows import DataError, encode_labels, readable
from metatext.targets import encode_label_sets, encode_scores, read_targets
from metatext.task_loading import load_task


def assert_is_rows(task):
    assert task.inputs() == [row["text"] for row in ROWS]
    assert [task.labels[t] for t in task.targets] == [row["label"] for row in ROWS]
    assert task.targets.dtype == np.int64
    assert task.kind == "classification" and not task.is_pair


# Sources ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize("kind_of_path", [str, lambda path: path], ids=["str", "Path"])
def test_files(tmp_path, suffix, kind_of_path):
    task = load_task(kind_of_path(write(tmp_path / f"mail{suffix}")))
    assert_is_rows(task)
    assert task.name == "mail"
    assert task.labels == ("delivery", "refund")


@pytest.mark.parametrize(
    "source",
    [
        *(ROWS, tuple(ROWS), {name: [row[name] for row in ROWS] for name in ROWS[0]}, pd.DataFrame(ROWS, index=[7, 5, 9])),
        *(Dataset.from_list(ROWS), DatasetDict(train=Dataset.from_list(ROWS)), {"train": Dataset.from_list(ROWS)}),
    ],
    ids=["list", "tuple", "columns", "DataFrame", "Dataset", "DatasetDict", "dict"],
)
def test_tables_in_memory(source):
    assert_is_rows(load_task(source))
    assert load_task(source, name="mail", description="What is it about?").prompt == "What is it about?"
    assert repr(load_task(source, name="mail")) == "Task('mail', classification, 3 rows, 2 classes)"


def test_rows_by_number_or_by_mask():
    task = load_task(ROWS)
    assert task.select(np.array([False, False, True])).inputs() == task.select([2]).inputs() == [ROWS[2]["text"]]


def test_dataset_with_a_selection_of_rows_keeps_its_order():
    task = load_task(Dataset.from_list(ROWS).select([2, 0]))
    assert task.inputs() == [ROWS[2]["text"], ROWS[0]["text"]]


@pytest.fixture
def corpus(tmp_path):
    """A folder with two splits."""
    write(tmp_path / "mail" / "train.parquet", ROWS)
    write(tmp_path / "mail" / "test.parquet", [{"text": "Late again.", "label": "delivery"}])
    return tmp_path / "mail"


def test_folder_with_a_file_per_split(corpus):
    assert_is_rows(load_task(str(corpus)))
    assert load_task(str(corpus)).name == "mail"
    assert load_task(str(corpus), split="test").inputs() == ["Late again."]
    assert sorted(load_task(str(corpus), split=None).inputs()) == sorted(["Late again.", *(row["text"] for row in ROWS)])


def test_folder_lacking_the_split_says_which_it_has(corpus):
    with pytest.raises(DataError, match=r"mail has no split 'dev'; it has test, train"):
        load_task(str(corpus), split="dev")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_folder_takes_every_format(tmp_path, suffix):
    write(tmp_path / "mail" / f"train{suffix}")
    assert_is_rows(load_task(str(tmp_path / "mail")))


def test_full_counts_as_train(tmp_path):
    write(tmp_path / "mail" / "full.jsonl")
    for split in ("train", "full", None):
        assert_is_rows(load_task(str(tmp_path / "mail"), split=split))


def test_split_of_a_dataset_dict():
    splits = DatasetDict(full=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:1]))
    assert_is_rows(load_task(splits))
    assert len(load_task(splits, split="test")) == 1
    assert len(load_task(splits, split=None)) == 4
    with pytest.raises(DataError, match="the DatasetDict has no split 'dev'; it has full, test"):
        load_task(splits, split="dev")


# Streams ---------------------------------------------------------------------------------------------------------


# not .csv: its reader in `datasets` leaves a file that is not read to the end to the garbage collector, which warns in a later test
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_stream_of_a_file_is_its_first_rows(tmp_path, suffix):
    path = write(tmp_path / f"mail{suffix}")
    assert_is_rows(load_task(str(path), streaming=True, max_rows=10))
    for streaming in (True, False):  # of any source, whether it is a stream or not
        task = load_task(str(path), streaming=streaming, max_rows=2)
        assert (task.name, task.inputs(), task.labels) == ("mail", [row["text"] for row in ROWS[:2]], ("delivery", "refund"))


def test_a_stream_of_a_folder(corpus):
    assert_is_rows(load_task(str(corpus), streaming=True, max_rows=10))
    assert len(load_task(str(corpus), split=None, streaming=True, max_rows=10)) == 4
    with pytest.raises(DataError, match=r"mail has no split 'dev'; it has test, train"):
        load_task(str(corpus), split="dev", streaming=True, max_rows=10)


def test_streams_that_a_caller_has_made():
    """Sorted by class, and shuffled in a buffer, as those do who use `datasets`."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["ham", "spam"])})
    rows = Dataset.from_dict({"text": [f"text {i}" for i in range(100)], "label": [0] * 50 + [1] * 50}, features=features)
    stream = rows.to_iterable_dataset()
    task = load_task(stream.shuffle(seed=0, buffer_size=100), max_rows=20)
    assert task.labels == ("ham", "spam") and 4 < task.targets.sum() < 16 and len(task) == 20
    assert len(load_task(IterableDatasetDict(train=stream, test=stream.take(5)), split=None, max_rows=200)) == 105


def test_the_first_rows_of_one_class_are_told_of(caplog):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["ham", "spam"])})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 0, 1]}, features=features)
    assert len(load_task(rows, name="mail", max_rows=3)) == 3 and caplog.messages == []
    assert load_task(rows, name="mail", max_rows=2).labels == ("ham", "spam")
    assert "mail: the first 2 rows are all of the class 'ham'; where a data set is sorted by class" in caplog.text


def broken_stream():
    yield {"text": "a", "label": "x"}
    raise OSError("the connection broke\nand more")


@pytest.mark.parametrize(
    "source, options, message",
    [
        (ROWS, {"streaming": True}, "streaming=True needs max_rows, the number of rows to take"),
        (IterableDataset.from_generator(broken_stream), {}, "an IterableDataset may be longer than .* give max_rows"),
        (IterableDataset.from_generator(broken_stream), {"max_rows": 2}, ": the stream cannot be read: the connection broke$"),
        (Dataset.from_list(ROWS).to_iterable_dataset().skip(3), {"max_rows": 2}, "the stream has no rows"),
        (ROWS, {"max_rows": 0}, "max_rows: expected a whole number of at least 1, got 0"),
        (ROWS, {"max_rows": True}, "max_rows: expected a whole number of at least 1, got True"),
        ("./nowhere.csv", {"streaming": True, "max_rows": 2}, "nowhere.csv does not exist"),
    ],
)
def test_streams_that_cannot_be_used(source, options, message):
    with pytest.raises(DataError, match=message):
        load_task(source, **options)


# Sources that do not fit -----------------------------------------------------------------------------------------


def test_splits_of_different_types_are_an_error_of_the_data(tmp_path):
    write(tmp_path / "mail" / "train.csv", ROWS)
    write(tmp_path / "mail" / "test.csv", rows_of([0, 1]))
    with pytest.raises(DataError, match=r"mail.*label"):
        load_task(str(tmp_path / "mail"), split=None)


@pytest.mark.parametrize("name", ["no.csv", "no/such/folder", "no.parquet"])
def test_missing_path(tmp_path, name):
    with pytest.raises(DataError, match=f"{name} does not exist"):
        load_task(str(tmp_path / name))


def test_missing_relative_path():
    with pytest.raises(DataError, match=r"^\./no does not exist"):
        load_task("./no")


def test_what_is_no_path_is_taken_for_a_hub_name():
    with pytest.raises(DataError, match=r"could not load 'no-such-set'.*neither a file nor a folder here"):
        load_task("no-such-set")


@pytest.mark.parametrize("name", ["notes.txt", "table.xlsx", "README"])
def test_file_of_an_unknown_format(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}.*\.csv, \.tsv, \.json, \.jsonl, \.parquet"):
        load_task(str(raw(tmp_path / name, "hello")))


def test_upper_case_suffix(tmp_path):
    write(tmp_path / "mail.csv").rename(tmp_path / "MAIL.CSV")
    assert_is_rows(load_task(str(tmp_path / "MAIL.CSV")))


def test_folder_without_data(tmp_path):
    with pytest.raises(DataError, match=r"holds no data file; expected <split>\.csv or"):
        load_task(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", "not parquet"),
        ("a.jsonl", '{"text": "a", "label": "p"}\n{"text": \n'),
        ("a.csv", ""),
        ("a.json", "[]"),
        ("a.jsonl", ""),
        ("a.csv", "text,label\n"),
    ],
    ids=["parquet", "jsonl", "empty-csv", "empty-json", "empty-jsonl", "csv-header"],
)
def test_file_that_cannot_be_read_is_named(tmp_path, name, content):
    path = raw(tmp_path / "bad" / name, content)
    with pytest.raises(DataError, match=name):
        load_task(str(path))


@pytest.mark.parametrize(
    ("name", "body", "said", "message"),
    [
        ("a.csv", "text,label\ncafé,p\n", "utf-8", r"line 2: byte 4 \(0xE9, behind 'caf'\) is no UTF-8; .*encoding='cp1252'"),
        ("a.tsv", "text\tlabel\n" + "a\tp\n" * 99_999 + "b\té", "utf-8", r"line 100001: byte 3 \(0xE9.*--encoding in the shell"),
        ("a.csv", "café,label\na,p\n", "ascii", r"line 1: byte 4 .* is no ASCII"),
        ("a.jsonl", '{"text": "a", "label": "p"}\n{"text": "é", "label": "p"}\n', "utf-8", "line 2: .* is no UTF-8; .* UTF-8$"),
        ("a.json", '[{"text": "a", "label": "p"},\n{"text": "é", "label": "p"}]', "utf-8", "line 2: .* is no UTF-8; .* UTF-8$"),
        ("a.jsonl", '{"é": "a", "label": "p"}\n', "utf-8", "line 1: .* is no UTF-8; .* UTF-8$"),
    ],
)
def test_bytes_that_are_no_text_are_named(tmp_path, name, body, said, message):
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        load_task(str(raw(tmp_path / name, body, "latin-1")), encoding=said)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("cp1252", "cp1252"),
        ("latin-1", "ISO-8859-1"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16", "utf-8"),  # their marks say more
        ("utf-32", "utf-32"),
        ("utf-8-sig", "cp1252"),
        ("utf-8-sig", "utf-8"),
    ],
)
def test_encodings(tmp_path, suffix, written, said):
    sep = "\t" if suffix == ".tsv" else ","
    path = raw(tmp_path / "mail" / f"train{suffix}", f'text{sep}label\n"café{sep}\nnaïve"{sep}é\nÜber{sep}ü\nok{sep}z\n', written)
    texts = [f"café{sep}\nnaïve", "Über", "ok"]
    for source, options in ((path, {}), (path.parent, {}), (path, {"streaming": True, "max_rows": 3})):
        task = load_task(str(source), encoding=said, **options)
        assert task.inputs() == texts and task.labels == ("z", "é", "ü")
    for tasks in (load_tasks(tmp_path, encoding=said), load_tasks([str(path.parent)], encoding=said)):
        assert [task.inputs() for task in tasks] == [texts]
    assert load_tasks([f"joined={path}"], encoding=said)[0].labels == ("z", "é", "ü")
    assert load_inputs(path, encoding=said).rows == texts


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin1252", "such as utf-8, .* got 'latin1252'"),
        ("rot13", "got 'rot13'"),
        (None, "a text, got None; write encoding='cp"),
    ],
)
def test_what_is_no_encoding(tmp_path, encoding, message):
    with pytest.raises(DataError, match=f"encoding: expected .*{message}"):
        load_task(str(write(tmp_path / "mail.csv")), encoding=encoding)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1"], ids=["xlsx", "xls"])
def test_a_workbook_by_another_name(tmp_path, name, start):
    (tmp_path / name).write_bytes(start + bytes(range(256)))
    with pytest.raises(DataError, match=rf"{name} is no \w+ but a workbook of Excel or a zip file; save it as csv"):
        load_task(str(tmp_path / name))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("name", ["mail.csv", "mail.jsonl"])
def test_a_cache_that_cannot_be_written_is_not_the_fault_of_the_file(tmp_path, monkeypatch, name, code):
    def full(*_, **__):
        raise DatasetGenerationError("An error occurred while generating the dataset") from OSError(code, os.strerror(code))

    monkeypatch.setattr("datasets.load_dataset", full)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", "/the/cache")
    message = rf"{name}: the cache of datasets, /the/cache, cannot be written \({os.strerror(code)}\).*HF_DATASETS_CACHE"
    with pytest.raises(DataError, match=message):
        load_task(str(write(tmp_path / name)))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    path = write(tmp_path / "mail.csv")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match=r"mail\.csv cannot be read: Permission denied"):
        load_task(str(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "expected a non-empty list of dicts"),
        ([["a", "b"]], "expected a non-empty list of dicts"),
        (3, "an IterableDataset, a pandas DataFrame, a list of dicts or a dict of columns, got int"),
        ({}, "a pandas DataFrame, a list of dicts or a dict of columns, got dict"),
        ({"text": ["a", "b"], "label": ["p"]}, "the columns do not form a table: .*expected length 2 but got length 1"),
        (Dataset.from_dict({"text": [], "label": []}), "has no rows"),
    ],
)
def test_source_that_is_no_table(source, message):
    with pytest.raises(DataError, match=message):
        load_task(source)


@pytest.mark.parametrize("name", ["[1] a*b", "what?", "two  spaces", "{x}", "文 büro", "a#b", "100%25", "it's"])
def test_paths_are_taken_literally(tmp_path, name):
    file = write(tmp_path / name / f"mail {name}.csv")
    assert_is_rows(load_task(str(file)))
    assert load_task(str(file)).name == f"mail {name}"
    file.rename(tmp_path / name / "train.csv")
    task = load_task(str(tmp_path / name))
    assert_is_rows(task)
    assert task.name == name


def test_a_changed_file_is_read_anew(tmp_path):
    path = write(tmp_path / "mail.csv")
    assert len(load_task(str(path))) == 3
    write(path, ROWS[:2])
    assert len(load_task(str(path))) == 2


UNUSUAL = [
    "🎉👩‍👩‍👧 yes",
    "天気がいいから散歩しましょう",
    "مرحبا بالعالم",
    "e\u0301 vs é",
    'a "quoted", comma',
    "two\nlines",
    "tab\there",
    "x" * 100_000,
]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_texts_arrive_unchanged(tmp_path, suffix):
    rows = [{"text": text, "label": ("yes ✅", "いいえ")[i % 2]} for i, text in enumerate(UNUSUAL)]
    task = load_task(str(write(tmp_path / f"mail{suffix}", rows)))
    assert task.inputs() == UNUSUAL
    assert set(task.labels) == {"yes ✅", "いいえ"}


@pytest.mark.parametrize(("name", "text"), [("a.csv", "text,label\na,p\nb,q\n"), ("a.tsv", "text\tlabel\na\tp\nb\tq\n")])
def test_byte_order_mark(tmp_path, name, text):
    task = load_task(str(raw(tmp_path / name, text, "utf-8-sig")))
    assert task.inputs() == ["a", "b"] and task.labels == ("p", "q")


@pytest.mark.parametrize("word", ["None", "NA", "N/A", "null", "nan"])
def test_words_of_a_csv_are_not_taken_for_missing_values(tmp_path, word):
    task = load_task(str(raw(tmp_path / "a.csv", f"text,label\n{word},{word}\nb,other\n")))
    assert task.inputs() == [word, "b"]
    assert set(task.labels) == {word, "other"}


# Columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"),
    [("sentence", "labels"), ("utterance", "intent"), ("tweet", "emotion"), ("Text", "LABEL"), ("content", "Category")],
)
def test_columns_with_usual_names(text, label):
    task = load_task([{"id": i, text: row["text"], label: row["label"]} for i, row in enumerate(ROWS)])
    assert_is_rows(task)
    assert task.rows.column_names == ["text"]


def test_columns_by_name():
    rows = [{"text": "wrong", "label": 0, "body": row["text"], "queue": row["label"]} for row in ROWS]
    assert_is_rows(load_task(rows, columns={"text": "body", "label": "queue"}))


def test_lower_case_wins_over_other_case():
    assert load_task([{"TEXT": "no", "text": "yes", "label": "a"}]).inputs() == ["yes"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"txt": "text"},
            r"columns has the unknown key 'txt'; did you mean 'text'\?.*Known keys: text, text_pair, label, label_name",
        ),
        ({"zzz": "text"}, r"columns has the unknown key 'zzz'[.;] Known keys: text, text_pair, label, label_name"),
        ({"text": "txet"}, r"column 'txet' \(for the text\) is not there; did you mean 'text'\?.*Columns present: text, label"),
        ({"label": "zzz"}, r"column 'zzz' \(for the label\) is not there[.;] Columns present: text, label"),
        ({"text": 3}, r"column 3 \(for the text\) is not there[.;] Columns present"),
        ({"text": "text", "label": "text"}, "column 'text' is named for the text and for the label; name one column for each"),
        ({"text": "label"}, "column 'label' is named for the text and for the label"),
    ],
)
def test_columns_that_do_not_exist(columns, message):
    with pytest.raises(DataError, match="task 'mail': " + message):
        load_task(ROWS, columns=columns, name="mail")


MAIL = [
    {"subject": "Card gone", "body": "I lost it.", "note": None, "label": "cards"},
    {"subject": None, "body": "Good day!", "note": "", "label": "talk"},
    {"subject": "Hello", "body": " \n", "note": "x", "label": "talk"},
]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", None])
@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        (["subject", "body"], ["Card gone\nI lost it.", "Good day!", "Hello"]),
        (("body", "subject"), ["I lost it.\nCard gone", "Good day!", "Hello"]),
        (["subject", "note", "body"], ["Card gone\nI lost it.", "Good day!", "Hello\nx"]),
    ],
)
def test_a_text_of_several_columns(tmp_path, suffix, columns, texts):
    """In the order in which they are named, without what is missing or blank; the source has the columns, the task their names."""
    source = str(write(tmp_path / f"mail{suffix}", MAIL)) if suffix else Dataset.from_list(MAIL)
    task = load_task(source, columns={"text": columns})
    assert task.inputs() == texts and task.answers() == ["cards", "talk", "talk"] and not task.is_pair
    assert task.columns == {"text": tuple(columns), "label": "label"} and task.rows.column_names == ["text"]
    assert load_task(source, columns=task.columns).digest() == task.digest()
    asked = load_inputs(source, {"text": columns}) if suffix else None
    assert asked is None or (
        asked.rows == texts and asked.targets == task.answers() and asked.table.column_names == list(MAIL[0])
    )


@pytest.mark.parametrize("cells", ["007 12", "7 12", "1.50 2", "+7 -1", "1e3 2.0", "TRUE False", "9" * 30 + " 1", "7 x", " 7"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_numbers_in_a_part_of_a_text_are_read_as_they_stand(tmp_path, suffix, cells):
    """Alike in examples and in rows to answer, whatever the other rows of the file are; labels and other columns are numbers as ever."""
    mark, (first, second) = "," if suffix == ".csv" else "\t", cells.split(" ")
    rows = [["number", "body", "label", "score"], [first, "a", "1", "1"], [second, "b", "2", "2"], ["", "c", "2", "3"]]
    path = raw(tmp_path / f"new{suffix}", "".join(mark.join(row) + "\n" for row in rows))
    texts = [f"{first}\na" if first else "a", f"{second}\nb", "c"]
    columns = {"text": ["number", "body"], "label": "label"}
    task, asked = load_task(str(path), columns=columns), load_inputs(path, columns)
    assert task.inputs() == asked.rows == texts and task.labels == (1, 2) and asked.targets == [1, 2, 2]
    own = load_task(str(path), columns={"label": "label"}, default_columns=task.input_columns)
    assert own.inputs() == load_inputs(path, default_columns=task.input_columns).rows == texts
    assert load_task(str(path), columns=columns, streaming=True, max_rows=2).inputs() == texts[:2]
    scores = load_task(str(path), kind="regression", columns={"text": ["number", "body"], "label": "score"})
    assert scores.targets.tolist() == [1, 2, 3]


def test_numbers_in_a_part_of_a_text_over_several_splits(tmp_path):
    folder = tmp_path / "corpus"
    raw(folder / "train.csv", "number,body,label\n1.50,a,x\n2,b,y\n")
    raw(folder / "test.csv", "number,body,label\nnone,c,x\n")
    assert load_task(str(folder), split=None, columns={"text": ["number", "body"]}).inputs() == ["none\nc", "1.50\na", "2\nb"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_part_of_a_text_that_is_of_numbers_by_its_type_is_refused_alike(tmp_path, suffix):
    """How such a number is written nobody says: 3 may be 3.0 beside a missing one."""
    path = write(tmp_path / f"new{suffix}", [{"number": n, "body": "a", "label": label} for n, label in ((1, "x"), (2, "y"))])
    for read in (load_task, load_inputs):
        with pytest.raises(DataError, match=r"task 'new': column 'number' \(for the text\) holds int64, expected texts"):
            read(str(path), columns={"text": ["number", "body"]})


def test_one_column_in_a_list_is_that_column():
    assert load_task(MAIL[:2], columns={"text": ["body"]}).columns == {"text": "body", "label": "label"}
    with pytest.raises(DataError, match="row 2 of column 'body' is empty"):
        load_task(MAIL, columns={"text": ["body"]})


def test_a_column_that_is_part_of_a_text_is_no_label_of_rows_to_answer(tmp_path):
    (path := tmp_path / "new.csv").write_text("type,body,queue\ncard,it is lost,a\nrent,it went up,b\n")
    both = {"text": ("type", "body")}
    assert load_inputs(path, both).targets is None  # "type" is a usual name of a label
    assert load_inputs(path, {**both, "label": "queue"}).targets == ["a", "b"]
    assert load_inputs(path, {**both, "label": "type"}).targets == ["card", "rent"]  # who names it means it


def test_other_texts_of_several_columns():
    rows = [{"a": "1", "b": "2", "a + b": "3", "label": name} for name in "xy"]
    pairs = load_task(rows, columns={"text": "a + b", "text_pair": ["b", "a"]})
    assert pairs.inputs() == [("3", "2\n1")] * 2
    assert load_task(rows, columns={"text": ["a", "b"], "label": "a + b"}).labels == ("3",)
    written = load_task(rows, kind="generation", columns={"input": ["a", "b"], "target": "label"})
    assert written.inputs() == ["1\n2"] * 2 and written.answers() == ["x", "y"]
    asked = [{"topic": "Ada", "question": "Who?", "context": "It was Ada.", "answers": "Ada"}]
    spans = load_task(asked, columns={"question": ["topic", "question"]})
    assert spans.inputs()[0]["question"] == "Ada\nWho?" and spans.targets.tolist() == [[7, 10]]


def test_rows_with_no_text_in_any_of_several_columns(tmp_path, caplog):
    rows = [*MAIL, {"subject": " ", "body": None, "note": "x", "label": "cards"}]
    columns = {"text": ["subject", "body"]}
    for read in (load_task, load_inputs):
        for suffix in (".csv", ".jsonl"):
            path = str(write(tmp_path / f"mail{suffix}", rows))
            with pytest.raises(
                DataError, match=r"row 3 of column 'subject \+ body' is empty; drop the row or fill it in"
            ) as error:
                read(path, columns=columns)
            assert error.value.row == 3
            read(path, columns=columns, skip_bad_rows=True)
            assert "left out 1 of 4 rows" in caplog.messages[-1]
    assert len(load_task(MAIL, columns={"text": ["note", "body"]}, skip_bad_rows=True)) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"text": ["subject", "bod"]},
            r"column 'bod' \(for the text\) is not there; did you mean 'body'\?.*Columns present: subject",
        ),
        ({"text": ["subject", None]}, r"column None \(for the text\) is not there"),
        ({"text": ["subject", "subject"]}, "column 'subject' is named twice for the text"),
        ({"text": []}, r"columns: expected one column for the text, got \[\]; the list is empty"),
        ({"text": {"subject", "body"}}, "columns: text: expected a list of names, got one set; give them in the order"),
        ({"text": ["subject", "label"]}, "column 'label' is named for the text and for the label"),
        (
            {"text": ["subject", "body"], "text_pair": ["subject", "body"]},
            "column 'subject' is named for the text and for the text_",
        ),
        (
            {"label": ["subject", "label"]},
            "columns: expected one column for the label, got .*; only the columns of text, text_pair, q",
        ),
        ({"context": ["subject", "body"]}, "columns: expected one column for the context, got "),
        ({"text": ["subject", "number"]}, r"column 'number' \(for the text\) holds int64, expected texts"),
        ({"text": ["subject", "tags"]}, r"column 'tags' \(for the text\) holds list<.*, expected texts"),
    ],
)
def test_columns_that_cannot_be_joined(columns, message):
    with pytest.raises(DataError, match="task 'mail': " + message):
        load_task([{**row, "number": 1, "tags": ["x"]} for row in MAIL], columns=columns, name="mail")


def test_input_columns_are_those_of_what_is_asked():
    assert load_task(MAIL, columns={"text": ["subject", "body"]}).input_columns == {"text": ("subject", "body")}
    assert load_task(PAIR).input_columns == {"text": "premise", "text_pair": "hypothesis"}
    assert load_task(OTHER_KINDS["span"]).input_columns == {"question": "question", "context": "context"}
    assert load_task(OTHER_KINDS["generation"]).input_columns == {"input": "input"}


BOTH = {"text": ("subject", "body")}


@pytest.mark.parametrize(
    ("rows", "columns", "defaults", "expected"),
    [
        ([{"subject": "a", "body": "b"}], {}, BOTH, "a\nb"),
        ([{"subject": "a", "body": "b"}], {"text": "body"}, BOTH, "b"),  # what is named wins
        ([{"subject": "a", "body": "b"}], {"text": ["body", "subject"]}, BOTH, "b\na"),
        ([{"title": "a", "text": "b"}], {}, {"text": "title"}, "a"),  # before the usual name
        ([{"text": "b"}], {}, BOTH, "b"),  # none of them is there
        ([{"text": "b", "note": "a"}], {}, {"text": "mail"}, "b"),
        ([{"mail text ": "a", "comment": "b"}], {}, {"text": "Mail Text"}, "a"),  # blanks and capitals alone are no other column
        ([{"SUBJECT": "a", "body": "b"}], {}, BOTH, "a\nb"),
        ([{"mail": "a", "MAIL": "b", "text": "c"}], {}, {"text": "Mail"}, "c"),  # which of them is open
        ([{"text": "b", "text_pair": "c", "body": "a"}], {}, {"text": "body"}, "a"),  # one text, as the examples were
        ([{"a": "1", "b": "2", "c": "3"}], {}, {"text": ("a", "b"), "text_pair": "c"}, ("1\n2", "3")),
        ([{"a": "1", "b": "2", "c": "3"}], {"text": "b"}, {"text": "a", "text_pair": "c"}, ("2", "3")),
        ([{"a": "1", "premise": "2", "hypothesis": "3"}], {}, {"text": "a", "text_pair": "b"}, ("2", "3")),  # both or none
    ],
)
def test_columns_of_examples_serve_where_none_are_named(tmp_path, rows, columns, defaults, expected):
    path = write(tmp_path / "new.jsonl", [{**row, "label": label} for row in rows for label in "xy"])
    found = load_inputs(path, columns, pairs=isinstance(expected, tuple), default_columns=defaults)
    assert found.rows == [expected] * 2 and found.targets == ["x", "y"]
    assert load_task(str(path), columns=columns, default_columns=defaults).inputs() == [expected] * 2


def test_columns_of_examples_that_are_not_there_are_said(tmp_path, caplog):
    """None of them: columns are found as ever; a part of them would be another text than that of the examples."""
    path, half = write(tmp_path / "new.csv"), write(tmp_path / "half.csv", [{"body": "b", "subjekt": "a", "label": "x"}])
    for read in (load_task, load_inputs):
        caplog.clear()
        read(str(path), default_columns=BOTH)
        assert "new: no 'subject' and 'body', as the examples had; columns are found by their usual names" in caplog.messages
        with pytest.raises(
            DataError,
            match=r"task 'half': the text of the examples stood in 'subject' and 'body'; 'subject' is not there; did you mean 'subjekt'\? "
            r"Columns present: body, subjekt, label; or name others: columns=\{'text': '<column>'\} \(--text_column in the shell\)\.",
        ):
            read(str(half), default_columns=BOTH)
        caplog.clear()
        read(str(half), columns={"text": "body"}, default_columns=BOTH)
        assert not any("examples" in message for message in caplog.messages)
    with pytest.raises(DataError, match="default_columns: expected a dict or None, got 'body'; give those of a classifier"):
        load_task(ROWS, default_columns="body")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["subject", "body"], ["subject", "body"]),
        (["Body", "Subject"], ["Subject", "Body"]),
        (["title", "text"], ["title", "text"]),
        (["text", "summary"], None),  # one says what the other does
        (["summary", "headline"], ["headline", "summary"]),
        (["body", "status"], None),
        (["text", "text_pair", "title"], None),
    ],
)
def test_a_second_text_that_is_not_read_is_said_once(caplog, columns, expected):
    rows = [{**dict.fromkeys(columns, name), "label": name} for name in "ab"]
    name = " ".join(columns)
    for _ in range(2):
        task = load_task(rows, name=name)
    if expected is None:
        assert not caplog.messages
    else:
        text = task.columns["text"]
        (other,) = set(expected) - {text}
        shell = " ".join(expected)
        assert caplog.messages == [
            f"{name}: the text is {text!r} alone; to read {other!r} too: columns={{'text': {expected}}} (--text_column {shell} in the shell)"
        ]
        caplog.clear()
        load_task(rows, name=name, columns={"text": text})
        load_task([{**row, other: 1} for row in rows], name=f"{name} of numbers")
        assert not caplog.messages


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"zzz": "a", "label": 0},
            r"no column for the text found\. Columns present: zzz, label\. Expected one of: text, sentence,",
        ),
        (
            {"this parcel is late": "where is my money", "delivery": "refund"},  # a csv without a header
            r"If 'this parcel is late' is a text and no name: the first line of a csv has to name the columns\.$",
        ),
        (
            {"text": "a", "zzz": 0},
            r"no column for the label found\. Columns present: text, zzz\. Expected one of: label, labels,",
        ),
        ({"text": "a", "zzz": 0}, r"or name it: columns=\{'label': '<column>'\} \(--label_column in the shell\)"),
        ({"text;label": "a;b"}, r"one column, 'text;label': its values are separated by ';'; save the file with commas"),
    ],
)
def test_missing_column_lists_present_and_expected_ones(row, message):
    with pytest.raises(DataError, match=message):
        load_task([row])


@pytest.mark.parametrize(("row", "column"), [({"txet": "a", "label": 0}, "txet"), ({"text": "a", "lable": 0}, "lable")])
def test_missing_column_suggests_the_nearest_present_one(row, column):
    with pytest.raises(DataError, match=f"did you mean '{column}'"):
        load_task([row])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("text", "text_pair"),
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        ("sentence_A", "sentence_B"),
        ("question1", "question2"),
        ("text1", "text2"),
        ("question", "sentence"),
    ],
)
def test_pairs_with_usual_names(first, second):
    task = load_task([{second: "b", "label": "yes", first: "a"}, {second: "d", "label": "no", first: "c"}])
    assert task.is_pair
    assert task.inputs() == [("a", "b"), ("c", "d")]
    assert task.inputs(1, 2) == [("c", "d")]


def test_pairs_by_name_and_single_texts_on_request():
    rows = [{"claim": "a", "evidence": "b", "verdict": "yes"}]
    assert load_task(rows, columns={"text": "claim", "text_pair": "evidence", "label": "verdict"}).inputs() == [("a", "b")]
    assert not load_task(PAIR, columns={"text": "hypothesis"}).is_pair
    assert load_task([{"text": "a", "text_pair": "b", "label": "c"}], columns={"text_pair": None}).inputs() == ["a"]


@pytest.mark.parametrize("column", ["premise", "hypothesis"])
@pytest.mark.parametrize("empty", [None, "", " \n\t\u2003"])
def test_empty_part_of_a_pair(column, empty):
    with pytest.raises(DataError, match=f"row 1 of column '{column}' is empty; drop the row or fill it in"):
        load_task([*PAIR, {**PAIR[0], column: empty}])


@pytest.mark.parametrize("empty", [None, "", " \n\t\u2003"])
def test_empty_text(empty):
    with pytest.raises(DataError, match="task 'mail': row 3 of column 'text' is empty; drop the row or fill it in"):
        load_task([*ROWS, {"text": empty, "label": "refund"}], name="mail")


def test_empty_text_in_a_csv(tmp_path):
    with pytest.raises(DataError, match="task 'mail': row 1 of column 'text' is empty"):
        load_task(str(raw(tmp_path / "mail.csv", "text,label\na,p\n,q\n")))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], "column 'text' holds int64, expected texts"),
        ([["a"], ["b"]], "column 'text' holds list<.*>, expected texts"),
        ([1.0, None], r"column 'text' holds double, expected texts \(row 1 is empty\)"),
        ([None, None], r"column 'text' holds null, expected texts \(row 0 is empty\)"),
    ],
)
def test_text_column_that_holds_no_text(values, message):
    with pytest.raises(DataError, match=message):
        load_task([{"text": value, "label": "a"} for value in values])


# Kinds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_kinds_are_found_by_their_columns(kind):
    task = load_task(OTHER_KINDS[kind], name="mail")
    assert task.kind == kind and len(task) == 1 and task.labels == ()


@pytest.mark.parametrize(
    "rows", [rows_of([0.5, 4.0]), [{"text": "a", "text_pair": "b", "score": 0.5}, {"text": "c", "text_pair": "d", "score": 4}]]
)
def test_numbers_are_scores(rows):
    task = load_task(rows)
    assert task.kind == "regression" and task.targets.dtype == np.float64
    assert (task.targets.tolist(), task.labels, task.label_names) == ([0.5, 4.0], (0.5, 4.0), (None, None))
    assert task.answers() == [0.5, 4.0] and "0.5 to 4" in repr(task)


def test_scores_are_read_where_the_kind_was_seen():
    both = [{"text": "a", "label": 0.25, "stars": 5}, {"text": "b", "label": 1.5, "stars": 1}]
    assert load_task(both).answers() == [0.25, 1.5]
    assert load_task(both, columns={"label": "stars"}, kind="regression").answers() == [5.0, 1.0]
    assert load_task([{"text": "a", "rating": 3.7}, {"text": "b", "rating": 1}], columns={"label": "rating"}).kind == "regression"
    unclear = [{"text": "a", "category": "x", "score": 3}, {"text": "b", "category": "y", "score": 4}]
    with pytest.raises(
        DataError, match=r"'category' and 'score' could both be the label; name it: columns=\{'label': 'category'\}"
    ):
        load_task(unclear)
    assert load_task(unclear, columns={"label": "category"}).kind == "classification"


def test_the_ends_of_a_scale_can_be_named():
    task = load_task(rows_of([1, 2]), kind="regression", label_names={0: "bad", 3: "fair", 5: "good"})
    assert (task.labels, task.label_names) == ((0.0, 5.0), ("bad", "good"))
    for names in (["bad", "good"], {0: "bad"}, {"a": "b", "c": "d"}):
        with pytest.raises(DataError, match="of a regression they name two scores of its scale at least"):
            load_task(rows_of([1, 2]), kind="regression", label_names=names)
    with pytest.raises(DataError, match=r"column 'label': row 1 has the score 2, the scale runs from 0 to 1"):
        load_task(rows_of([1, 2]), kind="regression", label_names={0: "bad", 1: "good"})


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), 10**400, "3", "x"])
def test_a_score_that_is_no_number(bad):
    with pytest.raises(DataError, match=r"targets: row 1 has the score .*; expected a finite number"):
        encode_scores([1.0, bad])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None, 1], "row 0 has the score None .*; expected a finite number; drop the row or score it"),
        (["1", "n/a"], r"row 1 has the score 'n/a' \(str\); expected a finite number$"),
        (["1", "4,5"], "row 1 has the score '4,5' .*; expected a finite number; write 4.5, with a point"),
        (["1", "1_0"], "row 1 has the score '1_0'"),
        ([1, 5e200], "row 1 has the score 5e\\+200"),
    ],
)
def test_scores_that_cannot_be_used(values, message):
    with pytest.raises(DataError, match=message):
        load_task(rows_of(values), kind="regression")


def test_scores_that_are_texts(tmp_path, caplog):
    assert load_task(rows_of(["3", " 4.5"]), kind="regression").targets.tolist() == [3.0, 4.5]
    with pytest.raises(DataError, match=r"row 0 has the score '3' .*; expected a finite number, not a text"):
        encode_scores(["3"])
    path = raw(tmp_path / "a.csv", "text,rating\na,5\nb,n/a\nc,3\n")
    assert load_task(path, skip_bad_rows=True).targets.tolist() == [5.0, 3.0]
    assert load_inputs(path, kind="regression").targets == [5.0, None, 3.0]


def test_ratings_that_are_words_are_classes():
    for values in (["good", "bad"], ["5 stars", "1 star"]):
        assert load_task([{"text": f"t {v}", "rating": v} for v in values]).labels == tuple(sorted(values))


def test_scores_that_say_nothing_and_classes_that_may_be_scores(caplog):
    load_task(rows_of([4, 4]), kind="regression", name="stars")
    assert "stars: every score is 4, and so will be every answer; name the ends of the scale" in caplog.text
    assert load_task(rows_of(["4,5", "1,0"]), name="stars").kind == "classification"
    assert "stars: labels such as '1,0' are read as classes; write scores with a point" in caplog.text


@pytest.mark.parametrize("column", ["label", "labels"])
def test_lists_of_labels_are_multilabel(column):
    task = load_task([{"text": "a", column: ["y", "x"]}, {"text": "b", column: []}, {"text": "c", column: ["big_deal"]}])
    assert (task.kind, task.labels, task.label_names) == ("multilabel", ("big_deal", "x", "y"), ("big deal", "x", "y"))
    assert task.targets.tolist() == [[False, True, True], [False, False, False], [True, False, False]]
    assert task.answers() == [["x", "y"], [], ["big_deal"]]
    assert task.select([2]).answers() == [["big_deal"]] and len(task.sample(2)) == 2


def test_class_labels_in_lists_are_multilabel():
    features = Features({"text": Value("string"), "label": List(ClassLabel(names=["x", "y", "z"]))})
    table = Dataset.from_list([{"text": "a", "label": [0, 1]}, {"text": "b", "label": []}], features=features)
    task = load_task(table)
    assert (task.kind, task.labels, task.answers()) == ("multilabel", ("x", "y", "z"), [["x", "y"], []])
    assert load_task(table, label_names=["ex", "why", "zed"]).label_names == ("ex", "why", "zed")
    with pytest.raises(DataError, match="label_names has 2 entries, the data has 3 labels"):
        load_task(table, label_names=["ex", "why"])
    holes = Dataset.from_dict({"text": ["a", "b"], "label": [[0], [2, None]]}, features=features)
    with pytest.raises(DataError, match=r"column 'label': row 1 has \[2, None\]; expected numbers of the 3 labels"):
        load_task(holes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["x"], "y"], r"row 1 has 'y'; expected a list of labels"),
        ([["x"], None], r"row 1 has None; expected a list of labels"),
        ([["x"], ["y", None]], r"row 1 has no label \(None\)"),
        ([["x"], ["x", 1]], r"row 1 has the label 1, row 0 'x'"),
        ([["x"], [], ["y", "row 99"], [1]], r"row 3 has the label 1, row 0 'x'"),
        ([[0, 1, 0], [1, 0, 0]], r"row 0 has the label 0 twice; expected the labels that apply, not a flag for each"),
        ([[True, False]], "row 0 has bools"),
        ([np.array(3)], "row 0 has array"),
        ([["x"], pd.NA], "row 1 has <NA>; expected a list of labels"),
        ([[], []], "no row has a label"),
    ],
)
def test_labels_that_are_no_lists(labels, message):
    with pytest.raises(DataError, match=message):
        encode_label_sets(labels)


def test_sets_of_labels_are_lists():
    of_sets, of_lists = (encode_label_sets([kind("ba"), kind(), kind("b")]) for kind in (set, list))
    np.testing.assert_array_equal(of_sets[0], of_lists[0])
    assert of_sets[1:] == of_lists[1:]


def test_an_unknown_label_in_a_list_is_named_by_its_row():
    with pytest.raises(DataError, match=r"row 2 has the label 'z', which is not among label_names"):
        encode_label_sets([["x", "y"], [], ["z"]], ["x", "y"])


def test_a_kind_that_cannot_be_used_or_is_none():
    with pytest.raises(DataError, match="no column for the input found"):
        load_task(ROWS, kind="generation")
    with pytest.raises(DataError, match=r"task 'task': no column for the question found. Columns present: text, label"):
        load_task(ROWS, kind="span")
    with pytest.raises(DataError, match="unknown kind 'clasification'; did you mean 'classification'"):
        load_task(ROWS, kind="clasification")
    with pytest.raises(DataError, match=r"unknown kind 3\. Known: classification"):
        load_task(ROWS, kind=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"columns": "text"}, "columns: expected a dict or None, got 'text'; write {'text': 'body', 'label': 'queue'}"),
        ({"columns": ["text"]}, "columns: expected a dict or None, got one list"),
        ({"description": 3}, "description: expected a text or None, got 3; write one sentence"),
        ({"description": ["x"]}, "description: expected a text or None, got one list"),
    ],
)
def test_arguments_of_another_type(given, message):
    with pytest.raises(DataError, match=message):
        load_task(ROWS, **given)


BAD_ROWS = {
    "classification": ([{"text": t, "label": x} for t, x in [("a", "x"), (" ", "y"), ("b", None), ("c", "y")]], {}, "row 1 of column 'text' is empty"),
    "unknown": ([{"text": t, "label": x} for t, x in [("a", "x"), ("d", "z"), ("b", "?"), ("c", "y")]], {"label_names": ["x", "y"]}, "row 1 has the label 'z', which is not among"),
    "class numbers": ([{"text": t, "label": x} for t, x in [("a", 1.0), ("d", None), ("b", None), ("c", 0.0)]], {}, "row 1 has the label None"),
    "multilabel": ([{"text": t, "labels": x} for t, x in [("a", ["x"]), ("b", ["x", "x"]), ("", ["x"]), ("c", ["y"])]], {}, "row 2 of column 'text' is empty"),
    "regression": ([{"text": t, "score": x} for t, x in [("a", "1"), ("b", "high"), ("d", "?"), ("c", "2")]], {"kind": "regression"}, "row 1 has the score 'high'"),
    "span": (
        [
            {"question": "q", "context": c, "answers": {"text": ["red"], "answer_start": [at]}}
            for c, at in [("a red", 2), ("a red", 1), (" ", 0), ("red", 0)]
        ],
        {},
        "row 2 of column 'context' is empty",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rows, options, message", BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_errors_or_left_out_and_counted(rows, options, message, caplog):
    with pytest.raises(DataError):
        load_task(rows, name="mail", **options)
    with caplog.at_level(logging.WARNING, "metatext"):
        task = load_task(rows, name="mail", skip_bad_rows=True, **options)
        assert task.rows[0] == {k: v for k, v in rows[0].items() if k in task.rows.column_names} and len(task) == 2
    assert len(caplog.messages) == 1 and "mail: left out 2 of 4 rows; the first: task 'mail'" in caplog.text
    assert message in caplog.text


def test_several_labels_in_a_csv(tmp_path, caplog):
    path = raw(tmp_path / "a.csv", "text,label\na,x; y\nb,y\nc,\n")
    task = load_task(str(path), kind="multilabel")
    assert task.labels == ("x", "y") and task.targets.tolist() == [[True, True], [False, True], [False, False]]
    one = load_task(str(path), skip_bad_rows=True)
    assert one.labels == ("x; y", "y") and "'x; y' is read as one label; for several give lists" in caplog.text
    with pytest.raises(DataError, match=r"row 2 has no label \(None\); .*; for several labels .* kind='multilabel'"):
        load_task(str(path))
    path = raw(tmp_path / "b.csv", 'text,label\na,"x, y"\nb,y\n')
    assert load_task(str(path), kind="multilabel", name="mail").labels == ("x, y", "y")
    assert "mail: 'x, y' is read as one label; put semicolons between labels, a;b" in caplog.text


def test_rows_without_a_label_of_several_are_good_rows():
    rows = [{"text": t, "labels": x} for t, x in [("a", ["x"]), ("b", ["y"]), ("c", []), ("", ["y"]), ("d", []), ("e", [])]]
    task = load_task(rows, skip_bad_rows=True)
    assert task.inputs() == ["a", "b", "c", "d", "e"] and task.targets.sum(1).tolist() == [1, 1, 0, 0, 0]


def test_splits_with_other_columns(tmp_path):
    write(tmp_path / "mail" / "train.csv", [{**row, "id": i} for i, row in enumerate(ROWS)])
    write(tmp_path / "mail" / "test.csv", ROWS[:1])
    task = load_task(str(tmp_path / "mail"), split=None)
    assert len(task) == 4 and task.labels == ("delivery", "refund")
    write(tmp_path / "mail" / "test.csv", [{"text": "not labelled"}])
    with pytest.raises(DataError, match="row 0 has no label"):  # splits stand in the order of their names
        load_task(str(tmp_path / "mail"), split=None)
    assert len(load_task(str(tmp_path / "mail"), split=None, skip_bad_rows=True)) == 3
    write(tmp_path / "mail" / "dev.csv", [{"sentence": "a", "intent": "b"}])
    with pytest.raises(DataError, match="mail: its splits have no column in common: sentence, intent; text; text, label, id"):
        load_task(str(tmp_path / "mail"), split=None, skip_bad_rows=True)


def test_files_that_are_no_splits_of_one_data_set(tmp_path):
    for name in ("sports", "ratings"):
        write(tmp_path / "corpora" / f"{name}.csv")
    with pytest.raises(DataError, match=r"ratings\.csv, sports\.csv, which are no splits of one data set; load_tasks reads"):
        load_task(str(tmp_path / "corpora"), split=None)
    for name in ("banking_77", "news_20"):
        write(tmp_path / "numbers" / f"{name}.csv")
    with pytest.raises(DataError, match="no splits of one data set"):
        load_task(str(tmp_path / "numbers"), split=None)


@pytest.mark.parametrize(
    "names",
    [
        ("part-0", "part-1"),
        ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"),
        ("banking_train", "banking_test"),
        ("train1", "train2"),
        ("in_domain_train", "in_domain_dev", "out_of_domain_dev"),
        ("training", "testing", "unsupervised"),
        ("anything",),
    ],
)
def test_files_that_are_splits_of_one_data_set(tmp_path, names):
    for name in names:
        write(tmp_path / "mail" / f"{name}.csv")
    assert len(load_task(str(tmp_path / "mail"), split=None)) == len(names) * len(ROWS)


def test_a_comma_in_a_text_without_quotation_marks(tmp_path):
    """pandas would take the first half of every text for the name of its row."""
    path = raw(tmp_path / "a.csv", "text,label\nhello, world,a\nbye, moon,b\n")
    with pytest.raises(
        DataError, match=r"row 0 \(line 2 .*\) has 3 values, the header 2 columns \(text, label\); put a text that holds a comma"
    ):
        load_task(str(path))
    path = raw(tmp_path / "b.csv", 'text,label\n"two\nlines",a\nbye,b\nhello, world,c\n')
    with pytest.raises(DataError, match=r"b\.csv: row 2 \(line 5 of the file\) has 3 values, the header 2 columns") as caught:
        load_task(str(path))
    assert caught.value.row == 2
    named = raw(tmp_path / "c.csv", '"text","label"\n"1","a","x"\n"2","b","y","z"\n')  # by their numbers
    with pytest.raises(DataError, match=r"c\.csv: row 1 \(line 3 of the file\) has 4 values, the header 2 columns"):
        load_task(str(named))


@pytest.mark.parametrize("mark", ";|\t")
def test_a_csv_that_is_parted_by_something_else(tmp_path, mark):
    """As spreadsheets write it where the comma stands in numbers."""
    body = f'"text"{mark}label\n"no, {mark} thanks"{mark}x\nyes, please,{mark}y\n'
    assert load_task(str(raw(tmp_path / "a.csv", body))).inputs() == [f"no, {mark} thanks", "yes, please,"]
    what = {";": "a semicolon", "|": "a bar", "\t": "a tab"}[mark]
    with pytest.raises(DataError, match=rf"has 3 values, the header 2 columns \(text, label\); put a text that holds {what} in"):
        load_task(str(raw(tmp_path / "b.csv", f"text{mark}label\nno {mark} thanks{mark}x\n")))
    commas = raw(tmp_path / "c.csv", f'text,"label{mark}"\nno {mark} thanks,x\n')  # what it is said to be comes first
    assert load_task(str(commas), columns={"label": f"label{mark}"}).inputs() == [f"no {mark} thanks"]
    assert load_inputs(raw(tmp_path / "d.csv", f"text\nno {mark} thanks\n")).rows == [f"no {mark} thanks"]


@pytest.mark.parametrize("sep", ",\t")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('"Wow she said,p\nbad,n\ngreat" film,p\nfine,p\n', "4: a text goes on behind .* ends it, which began in line 2;"),
        ('a,x\r\n"He said so,x\r\nb,y\r\n""she"" said "no",x\r\nc,x\r\n', "5: a text .* began in line 3; put texts that hold"),
        ('"two\nlines",x\n"open,x\nb,y\n"shut, and so",y\n', "6: a text .* began in line 4"),
        ('"two\nlines","x\nb,y\nc" d,y\n', "5: a text .* began in line 3"),
        ('"Wow" she,"x\nb,y\nc" d,y\n', "4: a text .* began in line 2"),
        ('a,x\n"open,x\nb,y\nc,x\n', "3: a text has no quotation mark that ends it"),
    ],
)
def test_a_quotation_mark_that_swallows_rows(tmp_path, sep, body, message):
    path = raw(tmp_path / f"a.{'csv' if sep == ',' else 'tsv'}", f"text,label\n{body}".replace(",", sep))
    with pytest.raises(DataError, match=rf"a\..sv: line {message}"):
        load_task(str(path))


@pytest.mark.parametrize("sep", ",\t")
@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ('"Wow""\n\n she said",p\nbad,n\n', ['Wow"\n\n she said', "bad"]),
        ('"""one""\r\n""two""",p\r\n"bad" ,n\r\n', ['"one"\r\n"two"', "bad "]),
        ('"one\ntwo"  ,p\nbad,"n"', ["one\ntwo  ", "bad"]),  # blanks behind the mark
        ('"Wow" she said,p\n6" or 7",n\n', ["Wow she said", '6" or 7"']),  # marks that no row swallows
        ('"Wow" she said,"p"\nbad,"n\nn"', ["Wow she said", "bad"]),
    ],
)
def test_texts_in_quotation_marks(tmp_path, sep, body, texts):
    path = raw(tmp_path / f"a.{'csv' if sep == ',' else 'tsv'}", f"text,label\n{body}".replace(",", sep))
    assert load_task(str(path)).inputs() == texts


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_numbers_that_begin_with_zeros_are_names(tmp_path, suffix):
    lines = ["text,label,size", "a,001,1", "b,010,2", "c,001,3"]
    path = raw(tmp_path / f"a{suffix}", "\n".join(lines).replace(",", "\t" if suffix == ".tsv" else ",") + "\n")
    assert load_task(str(path)).labels == ("001", "010")
    assert load_inputs(path).table[0] == {"text": "a", "label": "001", "size": "1"}
    assert load_task(str(path), columns={"label": "size"}).labels == (1, 2, 3)
    sep = "\t" if suffix == ".tsv" else ","
    for split, labels in (("train", ("01", "02")), ("test", ("11", "12"))):
        raw(tmp_path / "mail" / f"{split}{suffix}", f"text{sep}label\na{sep}{labels[0]}\nb{sep}{labels[1]}\n")
    assert load_task(str(tmp_path / "mail"), split=None).labels == ("01", "02", "11", "12")
    raw(tmp_path / "mail" / f"dev{suffix}", f"text{sep}label{sep}code\na{sep}01{sep}007\n")  # a column that no other split has
    assert load_task(str(tmp_path / "mail"), split=None).labels == ("01", "02", "11", "12")
    scores = raw(tmp_path / f"scores{suffix}", f"text{sep}score\na b{sep}05\nc d{sep}10\n")
    assert load_task(str(scores)).targets.tolist() == [5.0, 10.0]


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["0", "1", "0"], (0, 1)),
        ([" 3", "+2", "-1"], (-1, 2, 3)),
        (["1", "2", "x"], ("1", "2", "x")),
        (["1", "0x1F", "2"], ("0x1F", "1", "2")),
        (["TRUE", "false", "True"], (False, True)),
        (["True", "no", "True"], ("True", "no")),
        (["1.0", "2", "1.0"], (1, 2)),
        (["1.5", "2", ".5e1"], (1.5, 5.0)),  # the ends of a scale
        (["1.1", "1.10", "v2"], ("1.1", "1.10", "v2")),
        (["100000000000000000001", "2", "3"], ("100000000000000000001", "2", "3")),
    ],
)
def test_a_column_of_a_csv_is_numbers_where_all_cells_are(tmp_path, cells, labels):
    path = raw(tmp_path / "a.csv", "text,label\n" + "".join(f"t,{cell}\n" for cell in cells))
    for streaming in (False, True):
        task = load_task(str(path), streaming=streaming, max_rows=10)
        assert task.labels == labels and [*map(type, task.labels)] == [*map(type, labels)]
    assert load_inputs(path).table["label"][:] == cells


@pytest.mark.parametrize(("usual", "late"), [("0.5", "escalated"), ("1", "1.5"), ("1", "A10020"), ("True", "maybe"), ("", "x")])
def test_a_long_csv_whose_cells_change_late(tmp_path, usual, late):
    """`datasets` reads 10,000 rows at a time and would hold what follows to the types of the first."""
    rows = [f"text {i},{i % 3},{usual}\n" for i in range(10_000)]
    path = raw(tmp_path / "a.csv", f"text,label,more\n{''.join(rows)}last,0,{late}\n")
    assert load_task(str(path)).labels == (0, 1, 2)
    assert load_inputs(path).table["more"][-2:] == [usual or None, late]
    path = raw(tmp_path / "b.csv", f"text,label\n{''.join(row.rsplit(',', 1)[0] + chr(10) for row in rows)}last,other\n")
    assert load_task(str(path)).labels == ("0", "1", "2", "other")


def test_a_csv_as_it_may_be_written(tmp_path):
    """An empty line first, names of rows, texts of any length, a mark that is closed before its text ends."""
    assert load_task(str(raw(tmp_path / "a.csv", "\ntext,label\na b,x\nc d,y\n"))).inputs() == ["a b", "c d"]
    named = raw(tmp_path / "b.csv", '"text","label"\n"1","a b","x"\n"2","c d","y"\n')
    assert load_task(str(named)).inputs() == ["a b", "c d"]
    assert load_inputs(named).table[1] == {"Unnamed: 0": "2", "text": "c d", "label": "y"}
    long = "z " * 70_000
    assert load_task(str(raw(tmp_path / "c.tsv", f"text\tlabel\n{long}\tx\nc d\ty\n"))).inputs()[1] == "c d"
    assert load_task(str(raw(tmp_path / "d.tsv", 'text\tlabel\n"Great" film\tx\nc d\ty\n'))).inputs()[1] == "c d"


def test_two_files_of_one_split(tmp_path):
    write(tmp_path / "mail" / "train.csv")
    write(tmp_path / "mail" / "train.jsonl")
    with pytest.raises(DataError, match=r"mail has two files of the split 'train': train\.csv and train\.jsonl; keep one"):
        load_task(str(tmp_path / "mail"))


def test_the_split_full_of_a_data_set_on_the_hub(monkeypatch):
    splits = DatasetDict(full=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:1]))
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: splits)
    assert len(load_task("someone/mail", split="full")) == 3
    assert len(load_task("someone/mail", split=None)) == 4


def test_what_is_wrong_with_a_table_is_not_skipped(caplog):
    with pytest.raises(DataError, match="no column for the text"):
        load_task([{"label": "x"}], skip_bad_rows=True)
    with pytest.raises(DataError, match="label_names: 'x' stands there twice"):
        load_task(ROWS, label_names=["x", "x"], skip_bad_rows=True)
    many = [{"text": f"t{i}" if i % 997 else " ", "label": i % 3} for i in range(5000)]
    assert len(load_task(many, skip_bad_rows=True)) == 5000 - 6 and "left out 6 of 5000 rows" in caplog.text


def test_classes_in_order_as_scores():
    task = load_task(
        [{"text": t, "label": i, "label_name": n} for i, (t, n) in enumerate([("a", "low"), ("b", "mid"), ("c", "top")])]
    )
    scores = as_scale(task)
    assert (scores.kind, scores.labels, scores.label_names) == ("regression", (0.0, 2.0), ("low", "top"))
    assert scores.answers() == [0.0, 1.0, 2.0] and scores.inputs() == task.inputs()
    with pytest.raises(DataError, match="expected a classification to read as scores, got kind regression"):
        as_scale(scores)
    with pytest.raises(DataError, match="a task of kind regression has no classes to choose from"):
        scores.with_classes([0.0])


def test_joined_rows_have_the_labels_of_their_parts():
    letters = "abcde"
    task = load_task([{"text": f"{c}{i}", "label": c} for c in letters for i in range(60)], name="letters")
    made = joined(task, n_rows=200, n_labels=4)
    assert (made.kind, len(made.labels), made.name) == ("multilabel", 4, "letters joined") and 50 < len(made) < 200
    for text, labels in zip(made.inputs(), made.answers(), strict=True):
        assert sorted(part[0] for part in text.split()) == labels and len(labels) in (2, 3)
    counts = [len(labels) for labels in made.answers()]
    parts = [part for text in made.inputs() for part in text.split()]
    assert len({*parts}) == len(parts)  # no row is used twice
    assert 0.2 < counts.count(2) / len(counts) < 0.8  # each number of parts as often
    again, other = joined(task, 200, n_labels=4), joined(task, 200, n_labels=4, seed=1)
    assert again.inputs() == made.inputs() != other.inputs()
    with pytest.raises(DataError, match="at least 3 classes"):
        joined(task, n_labels=2)
    for wrong in (load_task(rows_of(["x", "y"])), load_task(PAIR), made):
        with pytest.raises(DataError, match="expected a classification of single texts with at least 3 classes"):
            joined(wrong)


def test_readings_in_a_list_of_tasks(tmp_path):
    rows = [{"text": f"{c}{i}", "label": c, "stars": i} for c in "abc" for i in range(4)]
    write(tmp_path / "mail" / "train.parquet", rows)
    path = tmp_path / "mail"
    scale, column, several = load_tasks([f"scale={path}", f"scale={path}@stars", f"joined={path}"])
    assert (scale.kind, scale.labels) == ("regression", (0.0, 2.0))
    assert (column.kind, column.labels) == ("regression", (0.0, 3.0))
    assert several.kind == "multilabel" and several.labels == ("a", "b", "c")
    with pytest.raises(DataError, match=r"scale=starter/train: expected one task, found \d+; name each by itself"):
        load_tasks(["scale=starter/train"])


@pytest.mark.parametrize(
    ("rows", "kind", "columns"),
    [
        (rows_of([0.0, 1.0]), None, {"label": "label"}),
        (rows_of([0.0, 1.0]), None, None),  # as pandas leaves class numbers
        ([{"text": "a", "label": 0, "stars": 2.5}, {"text": "b", "label": 1, "stars": 1.5}], None, None),
        (rows_of([0.0, 1.0]), "classification", {"label": "label"}),
        (rows_of([0.0, 1.0]), "classification", None),
        ([{"context": "a", "question": "b", "label": 0}, {"context": "c", "question": "d", "label": 1}], "classification", None),
    ],
)
def test_kind_that_was_guessed_wrongly_can_be_given(rows, kind, columns):
    """What the message on unsupported kinds advises."""
    task = load_task(rows, kind=kind, columns=columns)
    assert task.kind == "classification" and task.labels == (0, 1)


def test_generation_columns_named_as_text_and_label_are_classification():
    rows = [{"input": row["text"], "target": row["label"]} for row in ROWS]
    assert_is_rows(load_task(rows, columns={"text": "input", "label": "target"}))


def test_a_column_of_lists_named_by_the_caller_is_multilabel():
    assert load_task([{"text": "a", "tags": ["x", "y"]}], columns={"label": "tags"}).answers() == [["x", "y"]]


# Labels ----------------------------------------------------------------------------------------------------------


def features(*names):
    return Features({"text": Value("string"), "label": ClassLabel(names=list(names))})


def test_class_label_features_keep_their_order_and_classes_without_rows():
    task = load_task(Dataset.from_list(rows_of([1, 0, 1]), features=features("World_news", "PlayMusic", "unused")))
    assert task.labels == ("World_news", "PlayMusic", "unused")
    assert task.label_names == ("World news", "Play Music", "unused")
    assert task.targets.tolist() == [1, 0, 1]


def test_class_label_features_with_names_of_ones_own():
    table = Dataset.from_list(rows_of([1, 0]), features=features("neg", "pos"))
    for names in (["bad", "good"], {"neg": "bad", "pos": "good"}, {0: "bad", 1: "good"}):
        task = load_task(table, label_names=names)
        assert (task.labels, task.label_names, task.targets.tolist()) == (("neg", "pos"), ("bad", "good"), [1, 0])


def test_class_label_features_without_a_label():
    with pytest.raises(DataError, match=r"column 'label': row 1 has no label \(-1\); choose a labelled split or drop the row"):
        load_task(Dataset.from_list(rows_of([0, -1]), features=features("neg", "pos")))


def test_text_labels_are_sorted_and_read_as_words():
    task = load_task(rows_of(["b_refund", "AskPrice", "b_refund"]))
    assert task.labels == ("AskPrice", "b_refund")
    assert task.label_names == ("Ask Price", "b refund")


@pytest.mark.parametrize("labels", [[2, 0, 2], [True, False, True], [2.0, 0.0, 2.0]], ids=["int", "bool", "float"])
def test_numbers_have_no_name(labels):
    task = load_task(rows_of(labels), columns={"label": "label"})
    assert task.labels == (min(labels), max(labels))
    assert task.label_names == (None, None)
    assert task.targets.tolist() == [1, 0, 1]


@pytest.mark.parametrize("column", ["label_name", "label_text"])
def test_numbers_with_a_column_of_names_are_ordered_by_number(column):
    task = load_task(rows_of([1, 0, 1], **{column: ["a_good", "b_bad", "a_good"]}))
    assert task.labels == ("b_bad", "a_good")
    assert task.label_names == ("b bad", "a good")
    assert task.targets.tolist() == [1, 0, 1]


def test_numbers_with_a_column_of_names_given_by_name():
    task = load_task(rows_of([1, 0], name=["good", "bad"]), columns={"label_name": "name"})
    assert task.labels == ("bad", "good")


@pytest.mark.parametrize(
    "names", [["bad", "good"], {"neg": "bad", "pos": "good"}, {0: "bad", 1: "good"}], ids=["list", "by name", "by number"]
)
def test_numbers_with_a_column_of_names_and_names_of_ones_own(names):
    task = load_task(rows_of([1, 0], label_name=["pos", "neg"]), label_names=names)
    assert (task.labels, task.label_names, task.targets.tolist()) == (("neg", "pos"), ("bad", "good"), [1, 0])


def test_names_by_number_where_numbers_start_at_one():
    task = load_task(rows_of([2, 1], label_name=["pos", "neg"]), label_names={1: "bad", 2: "good"})
    assert task.label_names == ("bad", "good")
    assert task.targets.tolist() == [1, 0]


def test_numbers_with_a_list_of_names_index_it():
    task = load_task(rows_of([1, 0, 1]), label_names=["bad", "good", "never_seen"])
    assert task.labels == ("bad", "good", "never_seen")
    assert task.label_names == ("bad", "good", "never seen")
    assert task.targets.tolist() == [1, 0, 1]


def test_numbers_with_a_dict_of_names():
    task = load_task(rows_of([5, 3]), label_names={5: "five stars", 3: "three stars", 1: "one star", 0: None})
    assert task.labels == (5, 3, 1, 0)
    assert task.label_names == ("five stars", "three stars", "one star", None)
    assert task.targets.tolist() == [0, 1]


def test_text_labels_in_the_order_of_label_names():
    task = load_task(ROWS, label_names=["refund", "delivery"])
    assert task.labels == ("refund", "delivery")
    assert task.targets.tolist() == [1, 0, 1]


def test_labels_without_a_row_are_allowed_in_a_dict():
    task = load_task(ROWS, label_names={"refund": "wants money back", "delivery": "where is it", "praise": "is happy"})
    assert task.labels == ("refund", "delivery", "praise")
    assert task.label_names == ("wants money back", "where is it", "is happy")
    assert task.targets.tolist() == [1, 0, 1]


@pytest.mark.parametrize("missing", [None, "", "  "])
def test_missing_text_label(missing):
    message = r"task 'mail', column 'label': row 1 has no label \(.*\); drop the row or label it"
    with pytest.raises(DataError, match=message):
        load_task(rows_of(["a", missing, "b"]), name="mail")


def test_missing_number():
    with pytest.raises(DataError, match=r"column 'label': row 1 has no label \(None\); drop the row or label it"):
        load_task(rows_of([0, None]))


@pytest.mark.parametrize("labels", [["p", "", "q"], ["0", "", "1"]], ids=["text", "number"])
def test_missing_label_in_a_csv(tmp_path, labels):
    """Numbers with a gap arrive from a csv as floats; that does not make them scores."""
    path = raw(tmp_path / "a.csv", "text,label\n" + "".join(f"t,{label}\n" for label in labels))
    with pytest.raises(DataError, match=r"column 'label'.*row 1 has"):
        load_task(str(path))


@pytest.mark.parametrize("bad", [float("nan"), None, 0.5])
def test_numbers_that_are_no_label(bad):
    with pytest.raises(DataError, match=f"column 'label': row 1 has the label {bad}; expected a whole number or text"):
        load_task(rows_of([0.0, bad]), kind="classification")


@pytest.mark.parametrize(("number", "name"), [(None, "x"), (1, None)])
def test_missing_number_or_name(number, name):
    with pytest.raises(DataError, match=r"row 1 has no label \(.*\); drop the row or label it"):
        load_task(rows_of([0, number], label_name=["x", name]))


def test_number_with_two_names():
    with pytest.raises(DataError, match=r"column 'label': the label 0 has two names, 'bad' and \(row 2\) 'good'"):
        load_task(rows_of([0, 1, 0], label_name=["bad", "fine", "good"]))


def test_name_of_two_numbers():
    """Merging the two would lose a class in silence."""
    with pytest.raises(DataError, match=r"'good'.*[01].*[01]"):
        load_task(rows_of([0, 1], label_name=["good", "good"]))


@pytest.mark.parametrize("names", [["delivery", "refunds"], {"delivery": "d", "refunds": "r"}], ids=["list", "dict"])
def test_label_outside_label_names(names):
    message = r"row 1 has the label 'refund', which is not among label_names \['delivery', 'refunds'\]; did you mean 'refunds'\?"
    with pytest.raises(DataError, match=message):
        load_task(ROWS, label_names=names)


@pytest.mark.parametrize("bad", [2, -1])
def test_number_outside_label_names(bad):
    with pytest.raises(DataError, match=f"row 1 has the label {bad}; with 2 label_names it must be 0 to 1"):
        load_task(rows_of([0, bad]), label_names=["a", "b"])


def test_number_outside_a_dict():
    with pytest.raises(DataError, match=r"row 1 has the label 7, which is not among label_names \[0, 1\]"):
        load_task(rows_of([0, 7]), label_names={0: "a", 1: "b"})


def test_label_names_twice():
    with pytest.raises(DataError, match="label_names: 'a' stands there twice"):
        load_task(rows_of([0, 1]), label_names=["a", "a"])


def test_label_names_of_another_length():
    with pytest.raises(DataError, match=r"label_names has 3 entries, the data has 2 classes: \['neg', 'pos'\]"):
        load_task(rows_of([0, 1], label_name=["neg", "pos"]), label_names=["a", "b", "c"])


def test_label_names_that_are_one_text():
    with pytest.raises(DataError, match=r"label_names: expected a list of texts, or a dict {label: text}, got one text"):
        load_task(rows_of([0, 1]), label_names="ab")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([1, 2, 3], r"label_names: entry 0 is 1, and a list is of texts; give a dict {label: text}"),
        (["a", " "], "label_names: entry 1 is ' ', and a list is of texts"),
        ({"a", "b"}, "label_names: expected a list of texts, .* got one set; give them in the order of the classes"),
        (3, "label_names: expected a list of texts, .* got one int"),
        ({1: "a", None: "b"}, r"label_names: entry 1 has no label \(None\); drop the entry or label it"),
        ({1: "a", math.nan: "b"}, r"label_names: entry 1 has no label \(nan\)"),
        ({" ": "a", "b": "b"}, r"label_names: entry 0 has no label \(' '\)"),
        ({1: "a", (2, 3): "b"}, r"label_names: entry 1 has the label \(2, 3\) \(tuple\); labels are str or int$"),
        ({1: "a", "2": "b"}, "label_names: entry 1 has the label '2', entry 0 1; labels must be all text or all numbers"),
    ],
)
def test_label_names_that_name_no_labels(names, message):
    for read in (lambda: encode_labels([1, 2], names), lambda: encode_label_sets([[1], [2]], names)):
        with pytest.raises(DataError, match=message) as error:
            read()
        assert error.value.row is None
    with pytest.raises(DataError, match=message):
        load_task(rows_of([1, 2]), label_names=names)


@pytest.mark.parametrize("names", [{"a", "b"}, 3, "ab"], ids=["set", "number", "text"])
def test_label_names_of_classes_that_have_names(names):
    features = Features({"text": Value("string"), "label": List(ClassLabel(names=["x", "y"]))})
    lists = Dataset.from_dict({"text": ["a", "b"], "label": [[0], [1]]}, features=features)
    for table in (rows_of([1, 0], label_name=["pos", "neg"]), lists):
        with pytest.raises(DataError, match="label_names: expected a list of texts, or a dict"):
            load_task(table, label_names=names)


def test_a_blank_text_of_a_label_is_none():
    assert encode_labels([0, 1], {0: " ", 1: math.nan})[2] == (None, None)
    assert encode_scores([0, 1], {0: "", 1: " "})[2] == (None, None)


@pytest.mark.parametrize("values", [pd.Series([1, None], dtype="Int64"), pd.Series(["x", None], dtype="string"), [1, pd.NaT]])
def test_what_pandas_writes_for_a_gap(values):
    with pytest.raises(DataError, match=r"row 1 has no label \((<NA>|nan|NaT)\)"):
        encode_labels(values)


def test_text_and_numbers_mixed():
    with pytest.raises(DataError, match="the rows do not form a table"):
        load_task(rows_of([0, "a"]))
    message = "targets: row 2 has the label 1, row 0 'a'; labels must be all text or all numbers"
    with pytest.raises(DataError, match=message):
        encode_labels(["a", "b", 1])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("label", [0, 1, "z"], r"row 2 has the label 'z', row 0 0; labels must be all text or all numbers"),
        ("label", ["z", 1, 1.5], r"row 2 has the label 1\.5; expected a whole number or text"),
        ("label", ["z", True, "y"], r"row 1 has the label True, row 0 'z'; labels must be"),
        ("label", ["z", ["y"], "y"], r"row 1 has the label \['y'\] \(list\); .*; for lists of labels give kind='multilabel'"),
        ("label", [["z"], "y", "y"], r"row 1 has 'y'; expected a list of labels"),
        ("score", [1.5, "n/a", 2], r"row 1 has the score 'n/a' \(str\); expected a finite number"),
    ],
)
def test_values_of_several_types_in_json(tmp_path, column, values, message):
    path = raw(tmp_path / "a.json", json.dumps([{"text": "a", column: value, "name": "one"} for value in values]))
    for columns in ({}, {"label_name": "name"}):
        with pytest.raises(DataError, match=rf"column '{column}': {message}"):
            load_task(str(path), columns=columns)


def test_labels_of_another_type():
    with pytest.raises(DataError, match=r"row 0 has the label 0\.5 \(float\); labels are str or int"):
        encode_labels([0.5])


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("Refund_not_showing_up", "Refund not showing up"),
        ("PlayMusic", "Play Music"),
        ("alt.atheism", "alt.atheism"),
        ("sci-tech", "sci tech"),
        ("Sci/Tech", "Sci Tech"),
        ("HTTPError", "HTTPError"),
        ("  two   spaces ", "two spaces"),
        ("- minus", "- minus"),
        ("天気", "天気"),
        (3, "3"),
    ],
)
def test_readable(label, text):
    assert readable(label) == text


# Known data sets -------------------------------------------------------------------------------------------------


def test_folder_with_the_name_of_a_known_data_set(tmp_path):
    write(tmp_path / "imdb" / "train.parquet", rows_of([1, 0], label_name=["pos", "neg"]))
    task = load_task(str(tmp_path / "imdb"))
    assert task.labels == ("neg", "pos")
    assert task.label_names == ("negative film review", "positive film review")
    assert task.description == task.prompt == "Did the reviewer like the film?"


def test_what_is_given_wins_over_what_is_known(tmp_path):
    path = str(write(tmp_path / "imdb.csv", rows_of(["pos", "neg"])))
    task = load_task(path, label_names={"neg": "bad", "pos": "good"}, description="Good?")
    assert task.label_names == ("bad", "good") and task.description == "Good?"
    assert load_task(path, name="mine").label_names == ("neg", "pos")


def test_known_names_are_not_forced_on_other_labels(tmp_path):
    write(tmp_path / "imdb" / "train.csv", rows_of(["Drama", "Comedy"]))
    assert load_task(str(tmp_path / "imdb")).label_names == ("Comedy", "Drama")


def test_known_columns_are_not_forced_on_other_tables(tmp_path):
    """`clinc_oos` has its labels in `intent`; a local copy may call them `label`."""
    write(tmp_path / "clinc_oos" / "train.csv", ROWS)
    assert_is_rows(load_task(str(tmp_path / "clinc_oos")))


# Task ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uneven():
    """60 rows of a, 30 of b, 9 of c, 1 of d, none of e."""
    labels = np.random.default_rng(0).permutation(list("a" * 60 + "b" * 30 + "c" * 9 + "d"))
    return load_task(rows_of(labels.tolist()), label_names=list("abcde"), name="uneven", description="Which?")


def counts(task):
    return np.bincount(task.targets, minlength=len(task.labels)).tolist()


def positions(task, part):
    """Where the rows of ``part`` stand in ``task``."""
    return [task.inputs().index(text) for text in part.inputs()]


def test_inputs(uneven):
    assert uneven.inputs() == [f"text {i}" for i in range(100)]
    assert uneven.inputs(2, 4) == ["text 2", "text 3"]
    assert uneven.inputs(98) == ["text 98", "text 99"]
    assert uneven.inputs(3, 3) == []


def test_select(uneven):
    part = uneven.select([7, 3])
    assert part.inputs() == ["text 7", "text 3"]
    assert part.targets.tolist() == [uneven.targets[7], uneven.targets[3]]
    assert (part.labels, part.label_names, part.description) == (uneven.labels, uneven.label_names, uneven.description)
    assert part.select(np.array([1])).inputs() == ["text 3"]


def test_select_nothing(uneven):
    assert len(uneven.select([])) == 0 and uneven.select([]).inputs() == []


def test_sample_is_proportional_and_keeps_every_class(uneven):
    assert counts(uneven.sample(50)) == [30, 15, 4, 1, 0]
    assert counts(uneven.sample(20)) == [12, 6, 1, 1, 0]


def test_sample_keeps_order_labels_and_targets(uneven):
    part = uneven.sample(20)
    where = positions(uneven, part)
    assert where == sorted(set(where))
    assert part.targets.tolist() == uneven.targets[where].tolist()
    assert (part.labels, part.name) == (uneven.labels, uneven.name)


def test_sample_follows_from_the_seed(uneven):
    assert uneven.sample(20).inputs() == uneven.sample(20, seed=0).inputs()
    assert uneven.sample(20, seed=1).inputs() != uneven.sample(20).inputs()


@pytest.mark.parametrize("n", [4, 5, 10, 33, 99])
def test_sample_takes_at_most_n(uneven, n):
    assert len(uneven.sample(n)) <= n


def test_sample_of_few_rows_is_the_task(uneven):
    assert uneven.sample(100) is uneven


def test_sample_of_many_alike():
    task = load_task(rows_of(["a"] * 2 + ["b"] * 97 + ["c"]))
    assert [c > 0 for c in counts(task.sample(10))] == [True] * 3
    assert len(task.sample(10)) <= 10


def test_with_label_names(uneven):
    other = uneven.with_label_names(["one", None, "three", "4", "e"])
    assert other.label_names == ("one", None, "three", "4", "e")
    assert (other.name, other.labels, other.inputs()) == (uneven.name, uneven.labels, uneven.inputs())
    assert other.targets is uneven.targets and uneven.label_names == tuple("abcde")


@pytest.mark.parametrize(("names", "got"), [(["x", "y"], "2"), ("xyz", "'xyz'")])
def test_with_label_names_of_another_number(uneven, names, got):
    with pytest.raises(DataError, match=f"task 'uneven': expected 5 label names, one per class, got {got}"):
        uneven.with_label_names(names)


def test_a_task_of_one_class_loads():
    """Rows of no class, for `evaluate_tasks(outside=)`."""
    task = load_task(rows_of(["oos"] * 3))
    assert task.labels == ("oos",) and len(task) == 3


def test_with_classes(uneven):
    part = uneven.with_classes(["c", "a"], name="two")
    assert (part.name, part.labels, part.label_names) == ("two", ("c", "a"), ("c", "a"))
    assert counts(part) == [9, 60]
    old = uneven.targets[positions(uneven, part)]
    assert [part.labels[t] for t in part.targets] == [uneven.labels[t] for t in old]
    assert uneven.with_classes(["c"]).name == "uneven"


def test_with_classes_of_numbers():
    part = load_task(rows_of([4, 2, 7]), label_names={2: "two", 4: "four", 7: None}).with_classes([7, 2])
    assert (part.labels, part.label_names, part.targets.tolist()) == ((7, 2), (None, "two"), [1, 0])


def test_with_classes_that_do_not_exist():
    with pytest.raises(DataError, match=r"task 'mail' has no class 'refunds'; did you mean 'refund'\?"):
        load_task(ROWS, name="mail").with_classes(["refunds"])


def test_with_classes_twice_the_same(uneven):
    with pytest.raises(DataError, match=r"'a'.*twice"):
        uneven.with_classes(["a", "a"])


def test_prompt_without_a_description():
    assert load_task(ROWS, name="customer_mail").prompt == "customer mail"


# Rows without labels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_load_inputs(tmp_path, suffix):
    found = load_inputs(write(tmp_path / f"new{suffix}", [{"id": 7, "text": "a"}, {"id": 8, "text": "b"}]))
    ids = ["7", "8"] if suffix in (".csv", ".tsv") else [7, 8]  # cells of a csv as they are
    assert found.rows == ["a", "b"] and found.table["id"][:] == ids and found.targets is None
    pairs = write(tmp_path / f"pairs{suffix}", PAIR)
    assert load_inputs(pairs, pairs=True).rows == [(PAIR[0]["premise"], PAIR[0]["hypothesis"])]


def test_load_inputs_by_column(tmp_path):
    path = write(tmp_path / "new.csv", [{"body": "a", "title": "b"}])
    found = load_inputs(path, {"text": "title", "label": "none here"})
    assert found.rows == ["b"] and found.targets is None


@pytest.mark.parametrize(
    ("rows", "columns", "kind", "targets"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], {}, "classification", ["x", "y"]),
        ([{"text": "a", "label": 1, "label_name": "one"}], {}, "classification", ["one"]),
        ([{"text": "a", "queue": 3}], {"label": "queue"}, "classification", [3]),
        ([{"text": "a", "label": ["x", "z"]}, {"text": "b", "label": []}], {}, "multilabel", [["x", "z"], []]),
        ([{"text": "a", "score": 2.5}], {}, "regression", [2.5]),
        ([{"input": "a", "target": "b"}, {"input": "a", "target": "c"}], {}, "generation", [["b", "c"], ["b", "c"]]),
        ([{"text": "a", "label": "x"}], {"label": "topic"}, "classification", None),
    ],
)
def test_load_inputs_with_right_answers(tmp_path, rows, columns, kind, targets):
    assert load_inputs(write(tmp_path / "new.jsonl", rows), columns, kind=kind).targets == targets


def test_load_inputs_without_the_rows_that_cannot_be_used(tmp_path, capfd):
    path = raw(tmp_path / "new.csv", "text,label\na,1\n,1\nb,0\nc,\n")
    found = load_inputs(path, skip_bad_rows=True)
    assert (found.rows, found.targets, found.table["label"][:]) == (["a", "b", "c"], [1, 0, None], ["1", "0", None])
    assert "Flattening" not in capfd.readouterr().err  # no copy of the table, and no bar


def test_load_inputs_of_which_some_have_no_answer(tmp_path, caplog):
    path = write(tmp_path / "new.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": None}])
    assert load_inputs(path).targets == ["x", None]
    assert "new: 1 of 2 rows can be judged" in caplog.text
    path = write(
        tmp_path / "new.jsonl", [{"text": "a", "label": 0, "label_text": "x"}, {"text": "b", "label": 1, "label_text": "x"}]
    )
    assert (
        load_inputs(path).targets is None
        and "the answers are not judged: " in caplog.text
        and "belongs to two labels" in caplog.text
    )
    path = raw(tmp_path / "several.csv", "text,label\na,\nb,x;y\nc,\n")
    assert load_inputs(path, kind="multilabel").targets == [None, ["x", "y"], None]


def test_the_first_row_that_cannot_be_judged_is_named_as_in_its_file(tmp_path, caplog):
    path = raw(tmp_path / "new.csv", "text,score\na,\nb,5\nc,n/a\n")
    assert load_inputs(path, kind="regression").targets == [None, 5.0, None]
    assert "new: 1 of 3 rows can be judged; the first that cannot: task 'new', column 'score': row 2 has the score" in caplog.text


def test_many_rows_without_a_right_answer_take_no_time(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr("metatext.inputs.read_targets", lambda *args: looked.append(len(args[1])) or read_targets(*args))
    path = raw(tmp_path / "new.csv", "text,label\n" + "a,\n" * 3000 + "b,x\n")
    assert load_inputs(path).targets == [None] * 3000 + ["x"] and sum(looked) < 10


@pytest.mark.parametrize(
    ("name", "rows", "pairs", "message"),
    [
        ("a.csv", PAIR, False, "single texts expected, found the columns premise, hypothesis"),
        ("a.csv", ROWS, True, "pairs of texts expected, found the columns text"),
        ("a.csv", [{"zzz": "a"}], False, "no column for the text found. Columns present: zzz"),
        ("a.jsonl", [{"text": "a"}, {"text": " "}], False, "row 1 of column 'text' is empty"),
    ],
)
def test_load_inputs_that_cannot_be_used(tmp_path, name, rows, pairs, message):
    with pytest.raises(DataError, match=message):
        load_inputs(write(tmp_path / name, rows), pairs=pairs)


@pytest.mark.parametrize("name", ["no.csv", "notes.txt"])
def test_load_inputs_of_no_table(tmp_path, name):
    raw(tmp_path / "notes.txt", "hello")
    with pytest.raises(DataError, match=rf"{name} does not exist or is none of \.csv, \.tsv"):
        load_inputs(tmp_path / name)


def test_load_inputs_with_a_column_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match=r"'txet'.*did you mean 'text'"):
        load_inputs(write(tmp_path / "a.csv"), {"text": "txet"})


def test_splits_whose_columns_of_numbers_differ(tmp_path):
    """A column that is empty in one split, or whole there and not elsewhere, is the same column."""
    bodies = {"train": "hi,a,1.5,1,True\nyo,b,2.5,,False\n", "test": "hi,a,,2,\nyo,b,,0.5,\n", "dev": "oh,a,3,,\n"}
    for name, rows in bodies.items():
        raw(tmp_path / "mail" / f"{name}.csv", "text,label,price,score2,seen\n" + rows)
    task = load_task(str(tmp_path / "mail"), split=None)
    assert task.inputs() == ["oh", "hi", "yo", "hi", "yo"] and task.labels == ("a", "b")
    raw(tmp_path / "stars" / "train.csv", "text,score\nhi,1\nyo,2\n")
    raw(tmp_path / "stars" / "test.csv", "text,score\nhi,1.5\n")
    assert load_task(str(tmp_path / "stars"), split=None).targets.tolist() == [1.5, 1.0, 2.0]


def test_a_stream_is_checked_as_far_as_it_is_taken(tmp_path):
    path = raw(tmp_path / "a.csv", 'text,label\nhi,a\nyo,b\n"stray,a\nyo,b\n"zz" x,a\n')
    assert len(load_task(str(path), streaming=True, max_rows=2)) == 2
    with pytest.raises(DataError, match="line 6: a text goes on behind the quotation mark that ends it, which began in line 4"):
        load_task(str(path))


def test_labels_that_differ_by_case_or_blanks_alone(caplog):
    load_task({"text": ["a", "b", "c"], "label": ["billing", "refund", "Billing "]}, name="mail")
    assert "mail: the labels 'Billing ' and 'billing' differ by blanks or capital letters alone, and are two" in caplog.text


@pytest.mark.parametrize(
    ("kind", "rows", "targets", "said"),
    [
        ("classification", rows_of(["a", None, "b"]), ["a", None, "b"], "2 of 3 rows can be judged; 1 with nothing in 'label'"),
        ("classification", rows_of(["", None]), None, "0 of 2 rows can be judged; 2 with nothing in 'label'"),
        ("regression", rows_of([1.5, None]), [1.5, None], "1 of 2 rows can be judged; 1 with nothing in 'label'"),
        (
            "multilabel",
            rows_of([["a"], [], None]),
            [["a"], [], None],
            "2 of 3 rows can be judged; 1 with nothing in 'label' (here: not known; among examples: that there is none)",
        ),
        (
            "span",
            [{"question": "Who?", "context": "Ada.", "answers": answer} for answer in ("Ada", "")],
            [{"text": ["Ada"], "answer_start": [0]}, None],
            "1 of 2 rows can be judged; 1 with nothing in 'answers' (here: not known; among examples: that there is none)",
        ),
    ],
)
def test_rows_to_answer_that_say_nothing_are_counted(tmp_path, caplog, kind, rows, targets, said):
    asked = load_inputs(write(tmp_path / "new.jsonl", rows), kind=kind)
    assert asked.targets == targets and len(asked.rows) == len(rows)
    assert caplog.messages == [f"new: {said}"]


@pytest.mark.parametrize(
    ("text", "written", "said", "warned"),
    [("für", "utf-8", "cp1252", True), ("für", "cp1252", "cp1252", False), ("fur", "utf-8", "cp1252", False), ("für", "utf-8-sig", "cp1252", False), ("für", "utf-8", "UTF8", False)],
)  # fmt: skip
def test_a_utf8_file_said_to_be_another_is_warned_of(tmp_path, caplog, text, written, said, warned):
    """The encoding of the examples is told for the rows to answer too, which may be written otherwise."""
    path = raw(tmp_path / "new.csv", f"text,label\n{text},a\nb,b\n", written)
    load_task(str(path), encoding=said)
    found = [message for message in caplog.messages if "UTF-8" in message]
    expected = (
        f"{path}: read as cp1252, but what it holds is UTF-8: 'für' is read as 'fÃ¼r'; leave the encoding out for this file"
    )
    assert found == [expected] * warned
