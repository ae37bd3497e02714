"""Lists of tasks: folders of corpora, catalogues, the starter tasks, names."""

from __future__ import annotations

import json
import logging

import pytest
from conftest import SHARED
from tables import OTHER_KINDS, PAIR, ROWS, arrow_cache, raw, rows_of, write  # noqa: F401

from metatext.corpora import load_tasks
from metatext.rows import DataError


@pytest.fixture
def folder(tmp_path):
    """Five corpora that can be used, a table without labels and files of other sorts."""
    folder = tmp_path / "corpora"
    write(folder / "b_mail" / "train.parquet", ROWS)
    write(folder / "b_mail" / "test.parquet", ROWS[:1])
    write(folder / "c_news.jsonl", rows_of(["x", "y"]))
    write(folder / "d_claims" / "full.csv", PAIR)
    write(folder / "e_spans" / "train.parquet", OTHER_KINDS["span"])
    write(folder / "f_edits" / "train.jsonl", OTHER_KINDS["generation"])
    write(folder / "g_bare" / "train.csv", [{"zzz": "a"}])
    raw(folder / "notes.txt", "hello")
    (folder / "empty").mkdir()
    return folder


def names(tasks):
    return [task.name for task in tasks]


def test_load_tasks_leaves_out_what_it_cannot_use(folder, caplog):
    with caplog.at_level(logging.WARNING, "metatext"):
        tasks = load_tasks(folder)
    assert names(tasks) == ["b_mail", "c_news", "d_claims", "e_spans", "f_edits"]
    assert [len(task) for task in tasks] == [4, 2, 1, 1, 1]
    assert [task.is_pair for task in tasks] == [False, False, True, False, False]
    assert caplog.messages == ["corpora: left out 1 corpora: g_bare (columns not recognised)"]


def test_what_is_wrong_with_several_corpora_comes_in_one_error(folder, caplog):
    empty = [{"text": "", "label": "x"}]
    write(folder / "b_mail" / "test.parquet", empty)
    write(folder / "c_news.jsonl", empty)
    for source in (folder, [str(folder / "b_mail"), str(folder / "d_claims"), str(folder / "c_news.jsonl")]):
        with pytest.raises(DataError, match=r"2 of \d sources cannot be used:\n  .*b_mail.*\n  .*c_news.* row 0"):
            load_tasks(source)
    write(folder / "c_news.jsonl", rows_of(["x", "y"]))
    with pytest.raises(DataError, match=r"^task 'b_mail'"):  # one is said as it is
        load_tasks(folder)


def test_load_tasks_of_a_split(folder, caplog):
    with caplog.at_level(logging.WARNING, "metatext"):
        tasks = load_tasks(str(folder), split="test")
    assert names(tasks) == ["b_mail", "c_news"] and len(tasks[0]) == 1
    assert "d_claims (no split 'test')" in caplog.text
    assert [len(task) for task in load_tasks(folder, split="train")] == [3, 2, 1, 1, 1]


def test_load_tasks_without_a_reason_to_warn(folder, caplog):
    (folder / "g_bare" / "train.csv").unlink()
    load_tasks(folder)
    assert caplog.messages == []


@pytest.mark.parametrize("place", ["corpora/catalog.json", "catalog.json"], ids=["in it", "beside it"])
def test_load_tasks_with_descriptions(folder, place):
    catalog = {"b_mail": {"description": "What is wanted?"}, "c_news": {"kind": "classification"}, "d_claims": "text", "_": 1}
    (folder.parent / place).write_text(json.dumps(catalog), encoding="utf-8")
    assert [task.description for task in load_tasks(folder)] == ["What is wanted?", None, "text", None, None]
    (folder.parent / place).write_text(json.dumps({"b_mail": {"description": 5}}), encoding="utf-8")
    with pytest.raises(DataError, match="b_mail: expected a text as description, got 5"):
        load_tasks(folder)


def test_a_folder_of_corpora_among_names(folder, tmp_path):
    """Each corpus is a task of its own, and never are two of them one."""
    for name in ("sports", "ratings"):
        write(tmp_path / "files" / f"{name}.csv")
    found = load_tasks([str(tmp_path / "files"), str(folder / "b_mail"), str(folder / "catalog.json"), str(folder)])
    assert names(found) == ["ratings", "sports", "b_mail", *names(load_tasks(folder))]


def test_a_folder_of_one_corpus(folder, caplog):
    """Its splits are no tasks of their own, named in a list or alone."""
    (folder / "catalog.json").write_text('{"b_mail": {"description": "What is wanted?"}}', encoding="utf-8")
    for name, rows in (("b_mail", 4), ("d_claims", 1), ("f_edits", 1)):
        (alone,), (listed,) = load_tasks(folder / name), load_tasks([folder / name])
        assert (alone.name, len(alone), alone.description) == (
            name,
            rows,
            listed.description,
        ) and alone.digest() == listed.digest()
    assert [len(task) for task in load_tasks(folder / "b_mail", split="test")] == [1]
    (folder / "g_bare" / "train.csv").rename(folder / "g_bare" / "sports.csv")
    with pytest.raises(
        DataError, match="g_bare holds no corpus that can be used"
    ):  # one file of any name is a corpus in a folder
        load_tasks(folder / "g_bare")


@pytest.mark.parametrize(
    "files, found",
    [
        (["task1", "task2"], ["task1", "task2"]),
        (["eval_reviews", "train_tickets"], ["eval_reviews", "train_tickets"]),
        (["test_a", "test_b"], ["test_a", "test_b"]),
        (["my_dev"], ["my_dev"]),
        (["dev"], ["all"]),
        (["mail_train", "mail_test"], ["all"]),
        (["train-00000-of-00002", "train-00001-of-00002", "test"], ["all"]),
    ],
)
def test_which_files_are_one_corpus(tmp_path, files, found):
    """Labels of several tasks do not become those of one because their names have a word or a number in common."""
    for name in files:
        write(tmp_path / "all" / f"{name}.csv", ROWS)
    assert names(load_tasks(tmp_path / "all")) == found
    write(tmp_path / "all" / "deeper" / "full.csv", ROWS)  # beside other corpora a file is one by itself
    assert names(load_tasks(tmp_path / "all")) == sorted([*files, "deeper"])


def test_hidden_folders_and_files_that_do_not_fit_are_left_out(folder, caplog):
    before = names(load_tasks(folder))
    write(folder / ".ipynb_checkpoints" / "train.csv")
    write(folder / "h_twice" / "train.csv")
    write(folder / "h_twice" / "train.jsonl")
    write(folder / "i_two" / "sports.csv")
    write(folder / "i_two" / "ratings.csv")
    assert names(load_tasks(folder)) == names(load_tasks([str(folder)])) == before
    assert "h_twice (" in caplog.text and "i_two (ratings, sports are no splits of one data set)" in caplog.text
    write(folder / "c" / "any.csv")
    write(folder / "c" / ".ipynb_checkpoints" / "any-checkpoint.csv")
    assert names(load_tasks([str(folder / "c")])) == ["c"]


def test_a_folder_with_a_corpus_of_two_files_of_one_split_is_one_of_corpora_all_the_same(tmp_path, caplog):
    write(tmp_path / "all" / "mail.jsonl")
    for suffix in ("csv", "jsonl"):
        write(tmp_path / "all" / "twice" / f"train.{suffix}")
    for source in (tmp_path / "all", [str(tmp_path / "all")]):
        caplog.clear()
        assert names(load_tasks(source)) == ["mail"]
        assert "twice (" in caplog.text


def test_description_of_a_folder_with_a_dot_in_its_name(tmp_path):
    write(tmp_path / "mail_v1.5" / "train.csv")
    (tmp_path / "catalog.json").write_text('{"mail_v1.5": {"description": "What is wanted?"}}', encoding="utf-8")
    assert load_tasks(tmp_path)[0].description == "What is wanted?"
    assert load_tasks([str(tmp_path / "mail_v1.5")])[0].description == "What is wanted?"


@pytest.mark.parametrize("content", ["{", "[]"])
def test_broken_catalog_is_named(folder, content):
    (folder / "catalog.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"catalog\.json"):
        load_tasks(folder)


@pytest.mark.parametrize("name", ["h_broken.parquet", "h_broken/train.parquet", "h_broken.jsonl"])
def test_broken_corpus_is_named(folder, name):
    raw(folder / name, "{]")
    with pytest.raises(DataError, match=name):
        load_tasks(folder)


def test_broken_row_in_a_corpus_names_the_corpus(folder):
    write(folder / "h_gap.jsonl", [*ROWS, {"text": "", "label": "refund"}])
    with pytest.raises(DataError, match="task 'h_gap': row 3 of column 'text' is empty"):
        load_tasks(folder)


def test_load_tasks_by_names(folder):
    (folder / "catalog.json").write_text('{"b_mail": {"description": "What is wanted?"}}', encoding="utf-8")
    tasks = load_tasks([str(folder / "c_news.jsonl"), str(folder / "b_mail"), "starter/test"])
    assert names(tasks)[:3] == ["c_news", "b_mail", "app_feedback"]
    assert [task.description for task in tasks[:2]] == [None, "What is wanted?"]
    assert len(tasks[1]) == 4
    assert len(load_tasks([str(folder / "b_mail")], split="test")[0]) == 1


def test_load_tasks_by_path_objects(folder):
    assert names(load_tasks([folder / "c_news.jsonl", folder / "b_mail"])) == ["c_news", "b_mail"]


@pytest.mark.parametrize("item", ["./no.csv", "/no/such/folder"])
def test_load_tasks_by_names_that_do_not_exist(item):
    with pytest.raises(DataError, match=f"{item} does not exist"):
        load_tasks([item])


@pytest.mark.parametrize("source", ["no such folder", "c_news.jsonl"])
def test_load_tasks_of_no_folder(folder, monkeypatch, source):
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match=f"{source} is not a folder; give a folder of corpora, 'starter', or a list of names"):
        load_tasks(source)


def test_load_tasks_that_finds_nothing(tmp_path):
    with pytest.raises(DataError, match=r"holds no corpus that can be used: expected folders with <split>\.parquet"):
        load_tasks(tmp_path)
    with pytest.raises(DataError):
        load_tasks([])


def test_one_starter_task():
    (task,) = load_tasks(["starter/test/travel_diary"])
    (same,) = [task for task in load_tasks("starter/test") if task.name == "travel_diary"]
    assert task.digest() == same.digest() and task.description == same.description
    with pytest.raises(
        DataError, match=r"there is no starter/test/travel_dairy; did you mean 'travel_diary'\? Known: app_feedback, "
    ):
        load_tasks("starter/test/travel_dairy")
    with pytest.raises(DataError, match=r"there is no starter/no.* Known: generation, multilabel, regression, span, test, train"):
        load_tasks("starter/no")


def test_starter_is_both_parts():
    assert names(load_tasks("starter")) == names(load_tasks("starter/train")) + names(load_tasks("starter/test"))


@pytest.mark.shared
def test_shared_corpora(caplog):
    """Every corpus of the catalogue, classifications with their classes, and no warning."""
    catalog = json.loads((SHARED / "catalog.json").read_text(encoding="utf-8"))
    corpora = [path.name for path in (SHARED / "train").iterdir()]
    with caplog.at_level(logging.WARNING, "metatext"):
        tasks = load_tasks(SHARED / "train")
    assert {task.name: task.kind for task in tasks} == {name: catalog[name]["kind"] for name in corpora}
    assert {task.name: len(task.labels) for task in tasks} == {name: catalog[name]["classes"] or 0 for name in corpora}
    assert {task.name: len(task) for task in tasks} == {name: sum(catalog[name]["files"].values()) for name in corpora}
    assert {task.name: task.is_pair for task in tasks} == {name: "text_pair" in catalog[name]["columns"] for name in corpora}
    assert not caplog.records
