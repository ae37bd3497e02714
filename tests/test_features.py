"""The feature store: every text once, the same bits after any interruption, and episodes gathered from it."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import time

import numpy as np
import pytest
import torch
from letters import row_vectors
from scripts.encode_texts import letter_texts
from scripts.processes import finish, kill_when, started
from scripts.train_head import letter_task

import metatext as mt
from metatext import features
from metatext import store as stores
from metatext.episodes import draw_episodes
from metatext.features import combine_pair, encode_inputs, encode_tasks
from metatext.label_names import MEANINGLESS, STYLES
from metatext.representation import alike_direction, alike_plane, unit
from metatext.store import FeatureStore, default_folder, text_keys


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(stores, "PART", 8)


class Counting:
    """An encoder that writes down what it is asked to encode, and fails after ``patience`` calls."""

    def __init__(self, encoder, patience: int | None = None):
        self.encoder, self.patience, self.asked = encoder, patience, []

    def __getattr__(self, name):
        return getattr(self.encoder, name)

    def frozen(self):
        return self

    def encode(self, inputs):
        if self.patience is not None and len(self.asked) == self.patience:
            raise KeyboardInterrupt
        self.asked.append(list(inputs))
        return self.encoder.encode(inputs)

    @property
    def texts(self) -> list:
        return [text for part in self.asked for text in part]


def vectors_of(store: FeatureStore, inputs) -> np.ndarray:
    return store.gather(store.add(inputs))


def files(store: FeatureStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


# ---------------------------------------------------------------- once


def test_second_store_encodes_nothing_and_gives_the_same_bits(tiny, tmp_path):
    texts = letter_texts(50)
    first = FeatureStore(tiny, tmp_path)
    vectors = vectors_of(first, texts)
    assert first.encoded == 45
    second = FeatureStore(Counting(tiny), tmp_path)
    assert np.array_equal(vectors_of(second, texts[::-1])[::-1], vectors)
    assert second.encoded == 0
    assert second.encoder.asked == []
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, tiny.encode(texts).numpy(), atol=1e-5)


def test_each_distinct_text_is_encoded_once(tiny, tmp_path, small_parts):
    encoder = Counting(tiny)
    store = FeatureStore(encoder, tmp_path)
    ids = store.add(["abc", "de", "abc", "f", "de", "abc"])
    assert sorted(encoder.texts) == ["abc", "de", "f"]
    assert ids[0] == ids[2] == ids[5] != ids[1] == ids[4] != ids[3]
    store.add(["f", "g", "abc", "g"])
    assert sorted(encoder.texts) == ["abc", "de", "f", "g"]
    assert store.encoded == 4
    again = FeatureStore(encoder, tmp_path)  # several segments
    assert np.array_equal(vectors_of(again, ["g", "de"]), vectors_of(store, ["g", "de"]))
    assert again.encoded == 0


def test_nothing_to_add(tiny, tmp_path):
    store = FeatureStore(tiny, tmp_path)
    assert store.add([]).shape == (0,)
    store.add(["abc"])
    assert store.add([]).shape == (0,)
    assert store.gather(np.zeros((0,), np.int64)).shape == (0, tiny.dim)


def test_gather_of_any_shape_with_zeros_for_minus_one(tiny, tmp_path):
    store = FeatureStore(tiny, tmp_path)
    a, b = *store.add(["abc"]), *store.add(["de"])  # two segments
    out = store.gather(np.array([[a, -1, b], [-1, -1, a]]))
    assert out.shape == (2, 3, tiny.dim)
    expected = tiny.encode(["abc", "de"]).numpy()
    assert np.allclose(out[0, 0], expected[0], atol=1e-5)
    assert np.allclose(out[0, 2], expected[1], atol=1e-5)
    assert np.array_equal(out[1, 2], out[0, 0])
    assert not out[[0, 1, 1], [1, 0, 1]].any()
    assert not FeatureStore(tiny, tmp_path / "empty").gather(np.array([-1, -1])).any()


def test_vectors_do_not_depend_on_what_else_is_asked_for(tiny, tmp_path, small_parts):
    texts = letter_texts(60, seed=3)
    together = vectors_of(FeatureStore(tiny, tmp_path / "together"), texts)
    alone = FeatureStore(tiny, tmp_path / "alone")
    for text, vector in zip(texts[:20], together, strict=False):
        assert np.allclose(vectors_of(alone, [text])[0], vector, atol=1e-5)


# ---------------------------------------------------------------- keys


def test_keys_tell_inputs_apart(tiny):
    inputs = ["abc", "ab", "abc ", "ABC", ""]
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("c", "ab"), ("a\0", "bc"), ("a", "\0bc")]
    assert len({*text_keys(inputs).tolist(), *text_keys(pairs).tolist()}) == 12
    assert text_keys(["abc"])[0] == text_keys(["x", "abc"])[1]


def test_a_text_never_shares_the_key_of_a_pair():
    """The pair ("ab", "c") is hashed as a string; a text that spells this string is another input."""
    assert text_keys(["2\0ab\0c"])[0] != text_keys([("ab", "c")])[0]


def test_pairs_and_their_texts_have_vectors_of_their_own(tiny, tmp_path):
    store = FeatureStore(tiny, tmp_path)
    ids = np.concatenate([store.add([("ab", "c"), ("a", "bc")]), store.add(["ab", "abc"])])
    assert len(set(ids.tolist())) == 4
    vectors = store.gather(ids)
    assert np.allclose(vectors[:2], tiny.encode([("ab", "c"), ("a", "bc")]).numpy(), atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_other_pooling_length_or_prompt_is_another_folder(tiny, tiny_folder, tmp_path):
    variants = [{}, {"pooling": "cls"}, {"max_length": 5}, {"prompt": "q "}]
    stores = [FeatureStore(mt.Encoder.load(mt.EncoderConfig(str(tiny_folder), **v)), tmp_path) for v in variants]
    vectors = [vectors_of(store, ["abcdefgh"]) for store in stores]
    assert len({store.folder for store in stores}) == 4
    assert all(store.encoded == 1 for store in stores)
    assert all(np.abs(vectors[0] - other).max() > 1e-4 for other in vectors[1:])
    same = FeatureStore(mt.Encoder.load(mt.EncoderConfig(str(tiny_folder), pooling="mean", batch_tokens=32)), tmp_path)
    assert same.folder == stores[0].folder
    assert np.array_equal(vectors_of(same, ["abcdefgh"]), vectors[0])


def test_where_features_lie(monkeypatch, tmp_path):
    assert default_folder() == tmp_path / "features"  # METATEXT_CACHE
    monkeypatch.delenv("METATEXT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "metatext" / "features"


@pytest.mark.parametrize("text", ["a \ud800 b", "\udfff", "😀 a\u0000b \u202e", "é\u0301", " ", "a" * 100_000])
def test_any_string_has_a_vector(tiny, tmp_path, text):
    store = FeatureStore(tiny, tmp_path)
    vectors = vectors_of(store, [text, "abc", text])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert FeatureStore(tiny, tmp_path).add([text]).tolist() == store.add([text]).tolist()


def test_any_string_can_stand_in_a_pair(tiny, tmp_path):
    vectors = vectors_of(FeatureStore(tiny, tmp_path), [("a \ud800", "b"), ("c", "d\udc80"), ("", "a")])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize("done", [0, 1, 3])
def test_interrupted_encoding_goes_on_with_the_same_bits(tiny, tmp_path, small_parts, done):
    texts = letter_texts(50)
    whole = FeatureStore(tiny, tmp_path / "whole")
    expected = vectors_of(whole, texts)
    with pytest.raises(KeyboardInterrupt):
        FeatureStore(Counting(tiny, patience=done), tmp_path / "run").add(texts)
    encoder = Counting(tiny)
    store = FeatureStore(encoder, tmp_path / "run")
    assert np.array_equal(vectors_of(store, texts), expected)
    assert store.encoded == len(encoder.texts) == 45 - 8 * done
    assert files(store) == files(whole)
    assert not list(store.folder.glob("*.parts"))


def test_what_a_run_left_long_ago_is_cleared_away(tiny, tmp_path):
    folder = FeatureStore(tiny, tmp_path).folder
    for name, days in (("old", 8), ("new", 6)):
        (folder / f"{name}.parts").mkdir()
        (folder / f"{name}.parts" / "000000.npy").touch()
        os.utime(folder / f"{name}.parts", (time.time() - days * 24 * 3600,) * 2)
    FeatureStore(tiny, tmp_path)
    assert [path.name for path in folder.glob("*.parts")] == ["new.parts"]


def test_killed_encoding_goes_on_with_the_same_bits(tiny, tiny_folder, tmp_path, small_parts):
    texts = letter_texts(100)
    settings = {"encoder": str(tiny_folder), "cache": str(tmp_path / "run"), "texts": 100, "part": 8, "pause": 0.2}
    settings |= {"save_to": str(tmp_path / "out.npz"), "threads": torch.get_num_threads()}

    def parts() -> int:
        return len(list((tmp_path / "run").glob("*/*.parts/0*.npy")))

    with started("encode_texts.py", settings, tmp_path) as process:
        kill_when(process, lambda: parts() >= 3)
    finished = parts()
    assert 3 <= finished < 12
    encoder = Counting(tiny)
    store = FeatureStore(encoder, tmp_path / "run", progress=False)
    vectors = vectors_of(store, texts)
    assert store.encoded == 90 - 8 * finished
    assert np.array_equal(vectors, vectors_of(FeatureStore(tiny, tmp_path / "whole"), texts))


def test_two_processes_share_the_work(tiny, tiny_folder, tmp_path, small_parts):
    settings = {"encoder": str(tiny_folder), "cache": str(tmp_path / "run"), "texts": 100, "part": 8, "pause": 0.05}
    settings |= {"save_to": str(tmp_path / "{rank}.npz"), "threads": torch.get_num_threads()}
    with (
        started("encode_texts.py", settings, tmp_path / "0", LOCAL_RANK="0", LOCAL_WORLD_SIZE="2") as zero,
        started("encode_texts.py", settings, tmp_path / "1", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2") as one,
    ):
        for process in (zero, one):
            finish(process)
    with np.load(tmp_path / "0.npz") as first, np.load(tmp_path / "1.npz") as second:
        assert (int(first["encoded"]), int(second["encoded"])) == (48, 42)  # of 12 parts, the last of 2 texts, every other one
        assert np.array_equal(first["vectors"], second["vectors"])
        assert np.array_equal(first["vectors"], vectors_of(FeatureStore(tiny, tmp_path / "whole"), letter_texts(100)))
    assert not list((tmp_path / "run").glob("*/*.parts"))


def test_a_process_without_a_share_waits_for_the_result(tiny, tmp_path, monkeypatch):
    """The second of two processes where there is one part: another process's file appears while it waits."""
    store = FeatureStore(Counting(tiny), tmp_path / "run", share=(1, 2))
    waited = []

    def other_process(done, what, patience):
        if not waited:
            waited.append(what)
            assert not done()
            FeatureStore(tiny, tmp_path / "run", share=(0, 2)).add(["abc", "de"])
        assert done()

    monkeypatch.setattr(FeatureStore, "_wait", staticmethod(other_process))
    assert np.allclose(vectors_of(store, ["abc", "de"]), tiny.encode(["abc", "de"]).numpy(), atol=1e-5)
    assert store.encoded == 0
    assert len(waited) == 1


def test_share_of_a_launch(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert stores.local_share() == (0, 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert stores.local_share() == (1, 2)


@pytest.mark.parametrize("moment", [0, 2, 5])
def test_another_run_that_finishes_first_does_no_harm(tiny, tmp_path, monkeypatch, small_parts, moment):
    """Two runs that know nothing of each other encode the same texts; one ends while the other is at part ``moment``."""
    texts = letter_texts(50)

    class Overtaken(Counting):
        def encode(self, inputs):
            if len(self.asked) == moment:
                FeatureStore(tiny, tmp_path / "run").add(texts)
            return super().encode(inputs)

    def not_forever(done, what, patience):
        assert done(), f"would wait a day for {what}"

    monkeypatch.setattr(FeatureStore, "_wait", staticmethod(not_forever))
    vectors = vectors_of(FeatureStore(Overtaken(tiny), tmp_path / "run"), texts)
    assert np.array_equal(vectors, vectors_of(FeatureStore(tiny, tmp_path / "whole"), texts))
    assert not list((tmp_path / "run").glob("*/*.parts"))


# ---------------------------------------------------------------- damage


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def other_rows(path):
    np.save(path, np.load(path)[:-1])


def doubled(path):
    np.save(path, np.load(path).astype(np.float64))


def gone(path):
    path.unlink()


@pytest.mark.parametrize(
    ("file", "damage"),
    [(f, d) for f in ("vectors", "keys") for d in (half, empty, other_rows)] + [("vectors", doubled), ("vectors", gone)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_damaged_segments_are_computed_again(tiny, tmp_path, caplog, file, damage):
    texts = letter_texts(20)
    expected = vectors_of(FeatureStore(tiny, tmp_path), texts)
    (keys,) = tmp_path.glob("*/*.keys.npy")
    damage(keys if file == "keys" else keys.with_name(keys.name.replace(".keys.npy", ".npy")))
    with caplog.at_level(logging.WARNING):
        store = FeatureStore(tiny, tmp_path)
        vectors = vectors_of(store, texts)
    assert "damaged" in caplog.text
    assert "computed again" in caplog.text
    assert store.encoded == 18
    assert np.array_equal(vectors, expected)
    after = FeatureStore(tiny, tmp_path)
    assert np.array_equal(vectors_of(after, texts), expected)
    assert after.encoded == 0


def test_what_the_disk_says_is_not_taken_for_damage(tiny, tmp_path, monkeypatch):
    """Too many open files, or no right to read: what others have encoded stays."""
    texts = letter_texts(20)
    FeatureStore(tiny, tmp_path).add(texts)

    def refused(path, **_):
        raise OSError(24, "Too many open files", str(path))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
        patch.setattr(np, "load", refused)
        FeatureStore(tiny, tmp_path)
    after = FeatureStore(tiny, tmp_path)
    after.add(texts)
    assert after.encoded == 0


def test_small_segments_keep_no_file_open(tiny, tmp_path):
    store = FeatureStore(tiny, tmp_path, progress=False)
    store.add(["a"])
    before = len(os.listdir("/proc/self/fd"))
    for text in letter_texts(40)[:20]:
        store.add([text])
    assert len(store.tables) > 10 and len(os.listdir("/proc/self/fd")) <= before + 1
    again = FeatureStore(tiny, tmp_path, progress=False)
    assert again.add(letter_texts(40)[:20]).min() >= 0 and again.encoded == 0


def test_features_of_another_precision_are_others(tiny_folder, tmp_path):
    texts = letter_texts(10)
    half = mt.Encoder.load(str(tiny_folder)).to(torch.bfloat16)
    FeatureStore(half, tmp_path).add(texts)
    store = FeatureStore(mt.Encoder.load(str(tiny_folder)), tmp_path)
    ids = store.add(texts)
    assert store.encoded == len(set(texts))
    assert np.allclose(store.gather(ids), store.encoder.encode(texts).numpy(), atol=1e-6)


def test_vectors_without_keys_are_not_read(tiny, tmp_path):
    """A kill between the two files of a segment: it is encoded again, and replaced."""
    texts = letter_texts(20)
    expected = vectors_of(FeatureStore(tiny, tmp_path), texts)
    (keys,) = tmp_path.glob("*/*.keys.npy")
    keys.unlink()
    store = FeatureStore(tiny, tmp_path)
    assert np.array_equal(vectors_of(store, texts), expected)
    assert store.encoded == 18


def test_a_damaged_part_is_computed_again(tiny, tmp_path, small_parts):
    """A part that a disk fault cut short must not stop every later run."""
    texts = letter_texts(50)
    expected = vectors_of(FeatureStore(tiny, tmp_path / "whole"), texts)
    with pytest.raises(KeyboardInterrupt):
        FeatureStore(Counting(tiny, patience=3), tmp_path / "run").add(texts)
    half(next((tmp_path / "run").glob("*/*.parts/000001.npy")))
    assert np.array_equal(vectors_of(FeatureStore(tiny, tmp_path / "run"), texts), expected)


# ---------------------------------------------------------------- tasks and episodes


def test_features_of_a_task(tiny, tmp_path):
    texts = [f"{a}{b}" for a in "ab" for b in "cdefgh"] + ["ac"]  # the first once more
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(texts)]
    task = mt.load_task(rows, name="t", label_names={0: "even", 1: "odd"}, description="what it is")
    store = FeatureStore(tiny, tmp_path)
    found = encode_tasks(store, [task])
    assert found.rows.shape == (13, 1)
    assert found.pool.count.tolist() == [[6, 6]]  # the repeated text takes part once
    assert np.allclose(row_vectors(found, np.arange(13)), tiny.encode(texts).numpy(), atol=1e-5)
    assert np.allclose(store.gather(found.labels[0]), tiny.encode(["even", "odd"]).numpy(), atol=1e-5)
    assert np.allclose(store.gather(found.prompts), tiny.encode(["what it is"]).numpy(), atol=1e-5)
    assert store.encoded == 12 + 3
    assert encode_tasks(FeatureStore(Counting(tiny), tmp_path), [task]).store.encoded == 0


def test_tasks_of_many_chunks(tiny, tmp_path, monkeypatch):
    task = letter_task("letters", rows=10)
    whole = encode_tasks(FeatureStore(tiny, tmp_path / "a"), [task])
    monkeypatch.setattr(features, "CHUNK", 7)
    parts = encode_tasks(FeatureStore(tiny, tmp_path / "b"), [task])
    rows = np.arange(len(task))
    assert np.allclose(row_vectors(whole, rows), row_vectors(parts, rows), atol=1e-5)


def test_gathered_episodes_and_their_masks(tiny, tmp_path):
    tasks = [letter_task("a", classes=4), letter_task("b", classes=2, seed=1, described=False)]
    nameless = dataclasses.replace(tasks[1], label_names=(None, tasks[1].label_names[1]))
    found = encode_tasks(FeatureStore(tiny, tmp_path), [tasks[0], nameless])
    shape = mt.EpisodeConfig(n_way=(2, 4), k_shot=(0, 3), n_query=2, n_outside=1, name_dropout=0.5, description_dropout=0.5)
    batch = draw_episodes(found.pool, shape, np.arange(40) % 2, np.random.default_rng(0))
    data = found.gather(batch)
    support = data.support
    b, s, w, q, d = 40, batch.support.shape[1], 4, batch.query.shape[1], tiny.dim
    assert support.x.shape == (b, s, d)
    assert support.y.shape == (b, s, w)
    assert support.label_x.shape == (b, w, d)
    assert support.task_x.shape == (b, d)
    assert data.query.shape == (b, q, d)
    assert all(t.dtype == torch.float32 for t in (support.x, support.y, support.label_x, support.task_x, data.query))

    texts = [*tasks[0].inputs(), *tasks[1].inputs()]
    named = {(0, c): tasks[0].label_names[c] for c in range(4)} | {(1, 1): tasks[1].label_names[1]}

    @functools.cache
    def vector(text):
        return tiny.encode([text])[0]

    seen = set()
    for i, task in enumerate(batch.task.tolist()):
        for j, row in enumerate(batch.support[i]):
            assert support.row_mask[i, j] == (row >= 0)
            expected = vector(texts[row]) if row >= 0 else torch.zeros(d)
            assert torch.allclose(support.x[i, j], expected, atol=1e-5)
            one_hot = torch.eye(w)[batch.support_y[i, j]] if row >= 0 else torch.zeros(w)
            assert torch.equal(support.y[i, j], one_hot)
        for j, row in enumerate(batch.query[i]):
            assert data.query_mask[i, j] == (row >= 0)
            assert torch.allclose(data.query[i, j], vector(texts[row]) if row >= 0 else torch.zeros(d), atol=1e-5)
        for j, c in enumerate(batch.classes[i].tolist()):
            assert support.class_mask[i, j] == (c >= 0)
            name = named.get((task, c)) if batch.named[i, j] else None
            assert support.label_mask[i, j] == (name is not None)
            assert torch.allclose(support.label_x[i, j], vector(name) if name else torch.zeros(d), atol=1e-5)
            seen.add((c >= 0, bool(batch.named[i, j]), name is not None))
        assert support.task_mask[i] == batch.described[i]
        prompt = (tasks[0].description, "b")[task]
        assert torch.allclose(support.task_x[i], vector(prompt) if batch.described[i] else torch.zeros(d), atol=1e-5)
    assert seen == {(True, True, True), (True, True, False), (True, False, False), (False, False, False)}
    assert torch.equal(data.query_y, torch.from_numpy(batch.query_y))
    assert torch.equal(data.outside, torch.from_numpy(batch.outside))


def test_gathered_names_are_those_that_the_episode_bears(tiny, tmp_path):
    """Own, borrowed and meaningless names, each written as the episode says."""
    rows = [{"text": text, "label": i % 3} for i, text in enumerate(letter_texts(24))]
    named = mt.load_task(rows, name="named", label_names={0: "ab c", 1: "de f", 2: "gh i"})
    half = mt.load_task(rows, name="half", label_names={0: "jk l", 1: None, 2: "ab c"})
    store = FeatureStore(tiny, tmp_path)
    found = encode_tasks(store, [named, half], mt.EpisodeConfig(name_noise=0.5, name_variation=0.7))
    table = [*named.label_names, *half.label_names, *(invent(n) for invent in MEANINGLESS for n in range(3))]
    assert found.names.shape == (len(STYLES), len(table))
    assert store.gather(found.labels).any(-1).tolist() == [[True] * 3, [True, False, True]]

    shape = mt.EpisodeConfig(
        n_way=(2, 3), k_shot=(0, 2), n_query=1, name_dropout=0.2, name_noise=0.5, name_variation=0.7, unbalanced=0.3
    )
    batch = draw_episodes(found.pool, shape, np.arange(600) % 2, np.random.default_rng(0))
    support = found.gather(batch).support
    texts = [
        [STYLES[style](table[name]) if seen and table[name] else None for name, seen in zip(names, shown)]
        for names, shown, style in zip(batch.name, batch.named, batch.style)
    ]
    assert support.label_mask.tolist() == [[text is not None for text in row] for row in texts]
    flat = [text for row in texts for text in row]
    there = [i for i, text in enumerate(flat) if text]
    vectors = support.label_x.reshape(-1, tiny.dim)
    assert torch.allclose(vectors[there], tiny.encode([flat[i] for i in there]), atol=1e-5)
    assert not vectors[[i for i, text in enumerate(flat) if text is None]].any()
    assert {"ab c", "ab_c", "about: de f", "AbC", "class 1", "LABEL_2", None} <= set(flat)
    assert all(len(set(row)) == len(row) for row in ([t for t in row if t] for row in texts))


def test_names_are_multiplied_only_when_asked(tiny, tmp_path):
    task = letter_task("a", classes=2)
    store = FeatureStore(tiny, tmp_path)
    plain = encode_tasks(store, [task])
    before = store.encoded
    assert before == len(task) + 2 + 1 and plain.names.shape == (1, 2) and plain.pool.styles == 1
    varied = encode_tasks(store, [task], mt.EpisodeConfig(name_variation=0.1))
    assert len(STYLES) < store.encoded - before <= len(STYLES) * (2 + 2 * len(MEANINGLESS))
    assert np.array_equal(varied.labels, plain.labels)
    assert varied.pool.styles == len(STYLES) and varied.pool.meaningless == len(MEANINGLESS)


def test_tasks_without_any_label_name(tiny, tmp_path):
    task = dataclasses.replace(letter_task("a", classes=3), label_names=(None,) * 3)
    found = encode_tasks(FeatureStore(tiny, tmp_path), [task])
    assert found.labels.tolist() == [[-1, -1, -1]]


def test_a_part_of_a_batch_gathers_the_same(tiny, tmp_path):
    found = encode_tasks(FeatureStore(tiny, tmp_path), [letter_task("a")])
    batch = draw_episodes(found.pool, mt.EpisodeConfig(n_way=(2, 4), n_query=2), np.zeros(6, np.int64), np.random.default_rng(0))
    whole, part = found.gather(batch), found.gather(batch[2:4])
    for item in dataclasses.fields(whole.support):
        assert torch.equal(getattr(whole.support, item.name)[2:4], getattr(part.support, item.name))
    assert torch.equal(whole.query[2:4], part.query)


def test_features_as_float64(tiny, tmp_path):
    found = encode_tasks(FeatureStore(tiny, tmp_path), [letter_task("a")])
    batch = draw_episodes(found.pool, mt.EpisodeConfig(n_way=2, n_query=2), np.zeros(2, np.int64), np.random.default_rng(0))
    data = found.gather(batch)
    double = data.to(torch.float64)
    assert double.query.dtype == double.support.x.dtype == torch.float64
    assert double.query_y.dtype == torch.int64
    assert double.support.row_mask.dtype == torch.bool
    assert torch.equal(double.support.x.float(), data.support.x)


def test_pairs_beside_single_texts(tiny, tmp_path):
    rows = [{"text": a, "text_pair": b, "label": "xy"[i % 2]} for i, (a, b) in enumerate(["ab", "cd", "ef", "gh"])]
    pairs, singles = mt.load_task(rows, name="pairs"), letter_task("letters", classes=2, rows=4)
    found = encode_tasks(FeatureStore(tiny, tmp_path), [pairs, singles])
    assert found.rows.shape == (12, 3)
    assert (found.rows[:4] >= 0).all()
    assert (found.rows[4:, 0] >= 0).all()
    assert (found.rows[4:, 1:] == -1).all()
    vectors = row_vectors(found, np.array([[0, -1], [3, 5]]))
    inputs = [*pairs.inputs(), *singles.inputs()]
    assert np.allclose(vectors[[0, 1], 0], encode_inputs(tiny, [inputs[0], inputs[3]]).numpy(), atol=1e-5)
    assert np.allclose(vectors[1, 1], encode_inputs(tiny, [inputs[5]])[0].numpy(), atol=1e-5)
    assert not vectors[0, 1].any()


def test_inputs_that_are_not_kept(tiny):
    pairs = [("ab", "c"), ("d", "efg"), ("h", "i")]
    assert torch.allclose(encode_inputs(tiny, ["abc", "de"]), tiny.encode(["abc", "de"]))
    vectors = encode_inputs(tiny, pairs)
    assert vectors.shape == (3, tiny.dim)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    assert encode_inputs(tiny, []).shape == (0, tiny.dim)


def test_a_pair_by_numpy():
    """The formula of `combine_pair`, written down again, of texts that share little, much, nothing and everything."""
    d = 6
    joint, first, second = (
        unit(torch.randn(5, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)) for seed in (1, 2, 5)
    )
    second = unit(torch.tensor([1.0, 2.0, 0.5, 0.0, -3.0], dtype=torch.float64)[:, None] * first + second)
    second[3] = first[3]
    cosine = (first * second).sum(-1).numpy()
    assert cosine[4] < 0 < cosine[0] and cosine[3] == pytest.approx(1)
    u = np.sin(np.arange(1, d + 1) ** 2.0)
    v = np.cos(np.arange(1, d + 1) ** 2.0)
    u /= np.linalg.norm(u)
    v -= u * (u @ v)
    v /= np.linalg.norm(v)
    for i, feature in enumerate(combine_pair(joint, first, second).numpy()):
        c = np.clip(cosine[i], 0, 1)
        read = joint[i].numpy() - u * (u @ joint[i].numpy()) - v * (v @ joint[i].numpy())
        read /= np.linalg.norm(read)
        if i != 3:  # two texts that are the same differ in nothing
            read += (first[i] - second[i]).numpy() / np.linalg.norm(first[i] - second[i])
        read -= u * (u @ read) + v * (v @ read)
        read /= np.linalg.norm(read)
        np.testing.assert_allclose(feature, (read - u * np.cos(np.pi * c) + v * np.sin(np.pi * c)) / np.sqrt(2), atol=1e-7)


def test_pairs_are_near_those_that_are_as_alike_as_they_are():
    """Along one direction they are in the order of the cosines of their texts; half of the cosine of two pairs is this alone."""
    joint, first, other = (unit(torch.randn(60, 16, generator=torch.Generator().manual_seed(seed))) for seed in range(3))
    second = unit(first + torch.linspace(-0.2, 3, 60)[:, None] * other)
    pairs, cosine = combine_pair(joint, first, second), (first * second).sum(-1).clamp(0, 1)
    assert torch.allclose(pairs.norm(dim=-1), torch.ones(60), atol=1e-5)
    assert torch.equal((pairs @ alike_direction(joint)).argsort(), cosine.argsort())
    plane = alike_plane(joint)
    told = pairs @ plane.mT
    assert torch.allclose(told @ told.mT, 0.5 * torch.cos(torch.pi * (cosine[:, None] - cosine)), atol=1e-5)


def test_a_pair_of_equal_texts_has_a_gradient():
    """The difference of its texts has no direction there."""
    joint, text = (unit(torch.randn(3, 8, generator=torch.Generator().manual_seed(seed))).requires_grad_() for seed in range(2))
    combine_pair(joint, text, text).square().sum(0)[0].backward()
    assert torch.isfinite(joint.grad).all() and torch.isfinite(text.grad).all()


def test_processes_that_miss_different_texts_do_not_wait_for_ever(tiny, tmp_path, monkeypatch):
    """Another run wrote two of the texts between the starts of the two: each would wait for parts that nobody makes."""
    monkeypatch.setattr(stores, "PATIENCE", 0.3)
    texts = ["abc", "de", "fgh", "ij"]
    late = FeatureStore(tiny, tmp_path / "run", share=(0, 2))
    FeatureStore(tiny, tmp_path / "run").add(texts[:2])
    early = FeatureStore(tiny, tmp_path / "run", share=(1, 2))
    for store in (late, early):
        assert np.allclose(vectors_of(store, texts), tiny.encode(texts).numpy(), atol=1e-5)
    assert not list((tmp_path / "run").glob("*/*.parts"))
