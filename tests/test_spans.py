"""Spans: windows of long contexts, answers as places in them, the head, training, adapting, measuring."""

from __future__ import annotations

import dataclasses
from functools import partial
from unittest.mock import MagicMock as Mock

import numpy as np
import pytest
import torch
from scripts.train_head import find_the_run
from torch.autograd.functional import hessian, jacobian

import metatext as mt
from metatext.episodes import draw_episodes
from metatext.evaluation import draw_for
from metatext.features import encode_tasks
from metatext.heads import Logits, make_head
from metatext.inputs import load_inputs
from metatext.loading import EncoderError
from metatext.losses import span
from metatext.representation import Support
from metatext.rows import DataError
from metatext.spans import SpanTexts, other_contexts
from metatext.storage import StorageError
from metatext.store import FeatureStore, TokenStore
from metatext.targets import encode_answers
from metatext.windows import NONE, decode, locate, read_windows

LONG = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 150))


def said(windows, contexts, number):
    """The tokens of a window that are of its context, as the context has them; None for the others."""
    at = slice(windows.tokens.start[number], windows.tokens.start[number + 1])
    context = contexts[windows.row[number]]
    return [context[a:b] if a >= 0 else None for a, b in zip(windows.begin[at], windows.end[at])]


# --- windows ---------------------------------------------------------------------------------------------------------


def test_a_long_context_is_read_in_windows_that_overlap(tiny):
    contexts = ["abc", LONG, "x"]
    windows = read_windows(tiny, ["q", "why?", "z"], contexts)
    assert windows.row.tolist() == [0, 1, 1, 1, 1, 2] and windows.tokens.lengths.max() == tiny.max_length == 64
    assert said(windows, contexts, 0) == [None, None, None, "a", "b", "c", None]  # [CLS] q [SEP] a b c [SEP]
    assert 1 not in windows.tokens.flat  # no [UNK]
    pieces = [[c for c in said(windows, contexts, i) if c] for i in range(1, 5)]
    places = [windows.begin[windows.tokens.start[i] : windows.tokens.start[i + 1]] for i in range(1, 5)]
    assert all("".join(piece) == LONG[own[own >= 0][0] :][: len(piece)] for piece, own in zip(pieces, places))
    starts = [own[own >= 0][0] for own in places]
    assert np.diff(starts).tolist() == [57 - 16] * 2 + [starts[3] - starts[2]]  # 57 letters fit, 16 of them are seen twice
    assert places[3].max() == len(LONG) - 1


def test_a_question_that_fills_a_window_is_cut(tiny):
    windows = read_windows(tiny, [LONG], ["abc"])
    assert len(windows) == 1 and [c for c in said(windows, ["abc"], 0) if c] == ["a", "b", "c"]
    assert windows.tokens.lengths[0] == 1 + 28 + 1 + 3 + 1


def test_windows_need_room(tiny):
    with pytest.raises(EncoderError, match="windows of 12 tokens have no room for a question and a context; give at least 16"):
        read_windows(tiny, ["why?"], [LONG], max_length=12)
    assert len(read_windows(tiny, ["why?"], [LONG], max_length=16)) > 10


def test_a_tokenizer_must_know_characters(tiny, monkeypatch):
    monkeypatch.setattr(type(tiny.tokenizer), "is_fast", False)
    with pytest.raises(EncoderError, match=r"its tokenizer \(\w+\) does not say which characters a token covers"):
        read_windows(tiny, ["q"], ["abc"])


@pytest.mark.parametrize("text", ["ab\ud800cd", "d\u00e9j\u00e0 vu", "\U0001f600 smile"])
def test_characters_are_counted_as_python_does(embedded, text):
    windows = read_windows(embedded, ["what?"], [text + " red house"])
    start = len(text) + 1
    labels, shown = locate(windows, np.array([[start, start + 3]]))
    at = windows.tokens.start[shown[0]] + labels[shown[0]]
    assert (text + " red house")[windows.begin[at[0]] : windows.end[at[1]]] == "red"


def test_where_an_answer_is(tiny):
    contexts = ["abcdef", LONG, "xyz"]
    windows = read_windows(tiny, ["q", "why?", "z"], contexts)
    spans = np.array([[2, 4], [45, 49], [-1, -1]])
    labels, shown = locate(windows, spans)
    assert labels[0].tolist() == [5, 6] and shown[0] == 0  # [CLS] q [SEP] a b c d
    # the answer stands in the first two windows, 45 to 48 of 57 and 4 to 7: there is more on both sides in the first
    assert shown[1] == 1 and labels[1].tolist() == [51, 54] and labels[2].tolist() == [10, 13]
    assert labels[3].tolist() == labels[4].tolist() == [NONE, NONE]
    assert shown[2] == 5 and labels[5].tolist() == [NONE, NONE]
    longer = locate(windows, np.array([[2, 4], [30, 140], [-1, -1]]))
    assert (longer[0][1:5] == NONE).all() or longer[1][1] in (1, 2, 3, 4)


def test_the_best_answer_of_all_windows(tiny):
    contexts = ["abcd", LONG]
    windows = read_windows(tiny, ["q", "why?"], contexts)
    values = np.zeros((len(windows), 64, 3), np.float32)
    values[0, NONE, :2], values[0, 3, 0], values[0, 5, 1], values[0, 1, 0] = 1.0, 4.0, 3.0, 99.0  # "abc"; a question is no answer
    values[0, :, 2] = -0.5  # of every length
    values[1:, 9, 0], values[1:, 8, 1] = 50.0, 50.0  # an end before its start
    values[2, 20, 0], values[2, 22, 1], values[2, NONE, :2] = 60.0, 60.0, -5.0
    values[3, 20, 0], values[3, 22, 1], values[3, NONE, :2] = 70.0, 70.0, 40.0  # larger, but less above none
    found = decode(values, windows, np.arange(len(windows)), windows.row, 2, n=2)
    assert (found.begin[0, 0], found.end[0, 0]) == (0, 3)
    at = windows.begin[windows.tokens.start[2] + 20]
    assert (found.begin[1, 0], found.end[1, 0]) == (at, at + 3)
    assert found.answered.tolist() == pytest.approx([7.0 - 0.5 - 2.0, 130.0])
    total = np.exp(2.0) + sum(
        np.exp(values[0, i, 0] + values[0, j, 1] - 0.5) for i in range(3, 7) for j in range(i, 7)
    )  # a b c d are tokens 3 to 6
    assert found.score[0, 0] == pytest.approx(np.exp(6.5) / total, rel=1e-5) and found.none[0] == pytest.approx(
        np.exp(2.0) / total
    )
    assert (found.score[:, 0] >= found.score[:, 1]).all()
    assert decode(values, windows, np.full(len(windows), -1), windows.row, 2).answered.tolist() == [-np.inf, -np.inf]


def test_the_length_of_an_answer_counts(tiny, monkeypatch):
    windows = read_windows(tiny, ["q"], ["abcdefgh"])
    values = np.zeros((1, 12, 3), np.float32)
    values[0, 4, 2] = 1.0
    found = decode(values, windows, np.array([0]), np.array([0]), 1, n=40)
    assert found.end[0, 0] - found.begin[0, 0] == 5 and (found.score[0] > 0).sum() == 36  # all spans of eight letters
    monkeypatch.setattr("metatext.losses.MAX_ANSWER", 3)
    monkeypatch.setattr("metatext.windows.MAX_ANSWER", 3)
    found = decode(values, windows, np.array([0]), np.array([0]), 1, n=40)
    assert (found.end - found.begin).max() == 3 and (found.score[0] > 0).sum() == 8 + 7 + 6


# --- rows ------------------------------------------------------------------------------------------------------------

CONTEXT = "The red house is old."
BAD = {
    "no dict": ("red", r"row 0 has 'red'; expected \{'text': \[answer, ...\]"),
    "unequal": ({"text": ["red"], "answer_start": []}, r"as many of both, \[\] where there is no answer"),
    "off by one": ({"text": ["red"], "answer_start": [5]}, r"'red' at 5, but its context has 'ed ' there, the answer at 4"),
    "negative": ({"text": ["red"], "answer_start": [-17]}, "'red' at -17, but its context has"),
    "not there": ({"text": ["blue"], "answer_start": [4]}, "has 'red ' there and the answer nowhere"),
    "second": ({"text": ["red", "blue"], "answer_start": [4, 4]}, "the answer 'blue' at 4"),
    "beyond": ({"text": ["old."], "answer_start": [400]}, "'old.' at 400, but its context has '' there, the answer at 17"),
    "empty": ({"text": [""], "answer_start": [4]}, "row 0 has the answer '' at 4; expected a text and a whole number"),
    "a text for a place": ({"text": ["red"], "answer_start": ["4"]}, "the answer 'red' at '4'; expected a text and a whole"),
}


@pytest.mark.parametrize("answers, message", BAD.values(), ids=BAD)
def test_answers_that_cannot_be_used(answers, message):
    with pytest.raises(DataError, match=f"answers: (row 0 has .*)?{message}") as error:
        encode_answers([answers], [CONTEXT])
    assert error.value.row == 0


def test_answers_are_places():
    good = [{"text": ["red", "The red house"], "answer_start": [4, 0]}, {"text": [], "answer_start": []}]
    assert encode_answers(good, [CONTEXT, CONTEXT]).tolist() == [[4, 7], [-1, -1]]
    arrays = [{name: np.array(values) for name, values in row.items()} for row in good]  # as pandas reads them
    numbers = [{**row, "answer_start": list(map(np.int64, row["answer_start"]))} for row in good]
    for given in (arrays, numbers):
        assert encode_answers(given, [CONTEXT, CONTEXT]).tolist() == [[4, 7], [-1, -1]]


def test_a_table_of_questions(tmp_path):
    rows = [{"Question": "What?", "passage": CONTEXT, "answers": {"text": ["red"], "answer_start": [4]}, "id": 1}]
    task = mt.load_task(rows, kind="span", columns={"context": "passage"}, name="houses")
    assert task.kind == "span" and task.targets.tolist() == [[4, 7]] and "span, 1 rows)" in repr(task)
    assert task.inputs() == [{"question": "What?", "context": CONTEXT, "answers": rows[0]["answers"]}] and task.answers() is None
    with pytest.raises(DataError, match=r"task 'houses': no column for the context found. Columns present: Question, passage"):
        mt.load_task(rows, kind="span", name="houses")
    rows[0]["answers"] = {"text": ["red"], "answer_start": [3]}
    with pytest.raises(DataError, match=r"task 'houses', column 'answers': row 0 has the answer 'red' at 3"):
        mt.load_task(rows, kind="span", columns={"context": "passage"}, name="houses")
    empty = [{"question": "What?", "context": " ", "answers": {"text": [], "answer_start": []}}]
    with pytest.raises(DataError, match="row 0 of column 'context' is empty"):
        mt.load_task(empty, name="houses")


def test_answers_that_are_texts(tmp_path, caplog):
    caplog.set_level("INFO")
    rows = ["What?,The red house.,red", "When?,The red house.,", 'What?,"A fox, a fox.", fox']
    path = tmp_path / "houses.csv"
    path.write_text("question,context,answer\n" + "\n".join(rows) + "\n")
    task = mt.load_task(path)
    assert task.kind == "span" and task.targets.tolist() == [[4, 7], [-1, -1], [2, 5]]
    assert [row["answers"] for row in task.inputs()][:2] == [
        {"text": ["red"], "answer_start": [4]},
        {"text": [], "answer_start": []},
    ]
    assert "of 1 rows the answer stands in its context more than once" in caplog.text
    assert "houses: 1 of 3 rows have no answer in their context" in caplog.text
    path.write_text("question,context,answer\nWhat?,The Red house.,red\nWhat?,The red house.,red\n")
    with pytest.raises(DataError, match="row 0 has the answer 'red', which its context does not have word by word; it has 'Red'"):
        mt.load_task(path)
    assert len(mt.load_task(path, skip_bad_rows=True)) == 1


def test_right_answers_of_a_file_that_are_texts(tmp_path, capfd):
    path = tmp_path / "houses.csv"
    path.write_text("question,context,answer\nWhat?,The red house.,red\nWhat?,The red house.,\nWhat?,The red house.,blue\n")
    assert load_inputs(path, kind="span").targets == [{"text": ["red"], "answer_start": [4]}, None, None]
    path.write_text("question,context,answer\nWhat?,red,red\n,red,red\nWhat?,blue,blue\n")
    found = load_inputs(path, kind="span", skip_bad_rows=True)
    assert [answer["text"] for answer in found.targets] == [["red"], ["blue"]] and found.table["answer"][:] == ["red", "blue"]
    assert "Flattening" not in capfd.readouterr().err  # no copy of the table, and no bar


def test_questions_with_classes_are_pairs():
    rows = [{"question": "Is it?", "context": "It is.", "label": "yes"}, {"question": "Was it?", "context": "No.", "label": "no"}]
    assert mt.load_task(rows).inputs() == [("Is it?", "It is."), ("Was it?", "No.")]


# --- features and episodes -------------------------------------------------------------------------------------------


def test_questions_without_an_answer_are_asked_of_another_context(tiny):
    task = find_the_run()
    other = other_contexts(task)
    contexts = [row["context"] for row in task.inputs()]
    assert all(contexts[i] != contexts[j] for i, j in enumerate(other)) and len({*other.tolist()}) > len(task) / 2
    features = encode_tasks(TokenStore(tiny), [task, find_the_run("others", seed=1)])
    n = 2 * len(task)
    row = n + len(task) + 3  # the fourth row of the second task
    number = features.shown[row]
    asked, read = features.tasks[1].inputs()[3], features.tasks[1].inputs()[other_contexts(features.tasks[1])[3]]
    assert "".join(c for c in said(features.windows, {row: read["context"]}, number) if c) == read["context"]
    assert features.labels[number].tolist() == [NONE, NONE] and read["context"] != asked["context"]
    batch = draw_episodes(
        features.pool, mt.EpisodeConfig(k_shot=2, n_query=3, n_outside=4), np.array([0, 1]), np.random.default_rng(0)
    )
    assert batch.outside.sum(1).tolist() == [4, 4]
    data = SpanTexts(features, batch, "cpu").read(tiny)
    assert data.query_y[batch.outside][:, NONE].min() == 1 and data.outside.tolist() == batch.outside.tolist()


def test_one_context_has_no_other():
    rows = [{"question": q, "context": CONTEXT, "answers": {"text": ["red"], "answer_start": [4]}} for q in "abc"]
    task = mt.load_task(rows)
    assert other_contexts(task).tolist() == [-1, -1, -1]


def test_a_task_of_one_context_is_measured_without_questions_that_have_no_answer(tiny):
    context = "abcdefghijkl"
    rows = [
        {"question": f"{a}?", "context": context, "answers": {"text": [a], "answer_start": [context.index(a)]}}
        for a in context[:6]
    ]
    task, shape = mt.load_task(rows, kind="span", name="one context"), mt.EpisodeConfig(k_shot=1, n_query=2)
    measure = partial(mt.evaluate_tasks, mt.MetaModel.from_encoder(tiny), [task], n_episodes=4, baselines=(), progress=False)
    found = [str(measure(dataclasses.replace(shape, n_outside=n_outside))) for n_outside in (0, 1)]
    assert found[0] == found[1] and "one context" in found[0]  # there is no other context to ask of


def test_episodes_of_windows(tiny):
    """What a model that learns reads, and what is gathered from vectors that are computed before, are the same."""
    rows = find_the_run(rows=20).inputs()
    rows += [{"question": "x", "context": LONG + "xxx" + LONG[:9], "answers": {"text": ["xxx"], "answer_start": [150]}}]
    task = mt.load_task(rows, name="mixed")
    features = encode_tasks(FeatureStore(tiny, progress=False), [task])
    batch = draw_for(features, mt.EpisodeConfig(k_shot=(0, 4), n_query=16, n_outside=1), 6, 0)
    long = np.argwhere(batch.query == 20)
    assert len(long)
    taught = SpanTexts(features, batch, "cpu").read(tiny)
    whole = features.encoded(batch).gather(batch)
    assert taught.query.shape[1] == 17 < whole.query.shape[1]  # of the long context every window is asked
    assert torch.allclose(taught.support.x, whole.support.x[:, :, : taught.support.x.shape[2]], atol=1e-6)
    i, j = long[0]
    support, query, owner = features.windows_of(batch, every=True)
    assert (owner[i] == j).sum() == 4 and np.diff(query[i][owner[i] == j]).tolist() == [1, 1, 1]
    for own, tensor in ((support, whole.support.x), (query, whole.query)):
        number = own[i, 0]
        if number >= 0:
            tokens = features.windows.tokens[np.array([number])]
            with torch.no_grad():
                alone = tiny.learn(tokens, pooled=False)
            assert torch.allclose(tensor[i, 0, : len(alone)], alone, atol=1e-5) and not tensor[i, 0, len(alone) :].any()
    answers = np.pad(whole.query_y[i].numpy() * 9, ((0, 0), (0, 0), (0, 1)))  # scores that know the answers
    texts, right = next(features.judged(answers[None], batch[i : i + 1], "squad_v2_f1"))
    assert all(text in golds if golds else text == "" for text, golds in zip(texts, right)) and right[-1] == []
    assert features.judged(answers[None], batch[i : i + 1], "squad_f1").__next__()[0][-1] != ""  # must say something


def test_episodes_with_encoders_that_read_twice(tiny_folder):
    config = mt.EncoderConfig(str(tiny_folder), tuning="lora", pretrained_share=0.25)
    encoder = mt.Encoder.load(config)
    features = encode_tasks(TokenStore(encoder), [find_the_run()])
    batch = draw_for(features, mt.EpisodeConfig(k_shot=2, n_query=3), 2, 0)
    assert features.gather(batch).read(encoder).query.shape[-1] == encoder.dim == 64


# --- loss and head ---------------------------------------------------------------------------------------------------


def test_the_loss_of_a_span_by_hand():
    low = torch.finfo(torch.float32).min / 4
    values = torch.tensor(
        [[[[1.0, 0.0, 0.5], [2.0, 3.0, -1.0], [0.5, 1.0, 9.0]], [[0.0] * 3, [1.0] * 3, [9.0] * 3]]]
    )  # (1, 2, 3, 3)
    values = torch.cat([values, torch.full((1, 1, 3, 3), low)], 1)
    y = torch.zeros(1, 3, 3, 2)
    y[0, 0, 1, 0] = y[0, 0, 2, 1] = y[0, 1, NONE, 0] = y[0, 1, NONE, 1] = y[0, 2, NONE] = 1
    mask = torch.tensor([[[True] * 3, [True] * 3, [False] * 3]])
    rows = []
    for spans, right in (
        ({"none": 1.0, "1": 5.5, "12": 2.0, "2": 2.0}, "12"),
        ({"none": 0.0, "1": 2.0, "12": 11.0, "2": 18.0}, "none"),
    ):
        rows.append(np.log(sum(np.exp(score) for score in spans.values())) - spans[right])
    outside = torch.zeros(1, 3, dtype=torch.bool)
    loss = span(Logits(values, torch.zeros(1, 3)), y, mask, outside)
    assert loss.item() == pytest.approx(np.mean(rows), rel=1e-6)  # the third window is padding


D = 5


def episode(b: int = 2, s: int = 3, t: int = 7, q: int = 4, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(b, s + q, t, D, generator=g, dtype=torch.float64), dim=-1)
    mask = torch.rand(b, s + q, t, generator=g) < 0.8
    mask[..., NONE] = True
    places = torch.where(mask, torch.rand(b, s + q, t, generator=g), -1.0).argmax(-1)
    y = torch.nn.functional.one_hot(places, t)[..., None].expand(-1, -1, -1, 2).double()
    none = torch.zeros(b, 0, dtype=torch.bool)
    task = torch.randn(b, D, generator=g, dtype=torch.float64)
    yes = torch.ones(b, dtype=torch.bool)
    support = Support(x[:, :s], y[:, :s], x.new_zeros(b, 0, D), task, mask[:, :s], none, none, yes)
    return support, x[:, s:], mask[:, s:]


def head():
    made = make_head(mt.HeadConfig("gp"), D, "span").double().eval()
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in made.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g, dtype=torch.float64)
    return made


def test_the_head_takes_one_newton_step():
    model, (support, _, _) = head(), episode(b=1)
    bare = dataclasses.replace(support, x=support.x[:, :0], y=support.y[:, :0], row_mask=support.row_mask[:, :0])
    with torch.no_grad():
        prior, adapted = model.adapt(bare)["vectors"][0], model.adapt(support)["vectors"][0]
    precision = (model.log_precision - 2 * model.log_scale).exp().item()

    def loss(vector, c):
        scores = (support.x[0] @ vector).masked_fill(~support.row_mask[0], -1e30)
        likelihood = (support.y[0, ..., c] * scores.log_softmax(-1)).sum()
        return -likelihood + precision / 2 * (vector - prior[c]).square().sum()

    for c in (0, 1):
        own = partial(loss, c=c)
        step = torch.linalg.solve(hessian(own, prior[c]), jacobian(own, prior[c]))
        expected = prior[c] - model.log_step.exp() * step
        assert torch.allclose(adapted[c], expected.detach(), atol=1e-10)
        assert loss(adapted[c], c) < loss(prior[c], c)


def test_the_head_reads_how_long_answers_are():
    model, (support, query, mask) = head(), episode(b=1)
    y = torch.zeros_like(support.y)
    y[0, 0, 2, 0] = y[0, 0, 5, 1] = y[0, 1, 1, 0] = y[0, 1, 1, 1] = y[0, 2, NONE] = 1  # of 4 tokens, of 1, none
    with torch.no_grad():
        length = model.adapt(dataclasses.replace(support, y=y))["length"][0].numpy()
    mu, deviation, rows, weight = (
        model.length[0].item(),
        model.length[1].exp().item(),
        model.log_rows.exp().item(),
        model.log_weight.exp().item(),
    )
    mean = (np.log(4) + rows * mu) / (2 + rows)
    variance = ((np.log(4) - mean) ** 2 + mean**2 + rows * (deviation**2 + (mu - mean) ** 2)) / (2 + rows)
    expected = [weight * (-((np.log(n) - mean) ** 2) / variance - np.log(variance)) / 2 for n in range(1, 65)]
    np.testing.assert_allclose(length, expected, rtol=1e-9)
    values = model.logits(model.adapt(support), query, mask).values
    assert values.shape[-1] == 3 and (values[..., 2] == values[:, :1, :, 2]).all()


def test_order_and_padding_of_examples_change_nothing():
    model, (support, query, mask) = head(), episode()
    expected = model.logits(model.adapt(support), query, mask).values
    order = torch.tensor([2, 0, 1])
    parts = {name: getattr(support, name)[:, order] for name in ("x", "y", "row_mask")}
    shuffled = dataclasses.replace(support, **parts)
    assert torch.allclose(model.logits(model.adapt(shuffled), query, mask).values, expected, atol=1e-9)

    def pad(tensor: torch.Tensor, value) -> torch.Tensor:
        """Two more tokens to every window, and one more window."""
        tokens, window = (
            tensor.new_full((2, 3, 2, *tensor.shape[3:]), value),
            tensor.new_full((2, 1, 9, *tensor.shape[3:]), value),
        )
        return torch.cat([torch.cat([tensor, tokens], 2), window], 1)

    values = {"x": 0.3, "y": 0.0, "row_mask": False}
    padded = dataclasses.replace(support, **{name: pad(getattr(support, name), value) for name, value in values.items()})
    assert torch.allclose(model.logits(model.adapt(padded), query, mask).values, expected, atol=1e-9)
    one = model.logits(model.adapt(support), query[:, 1:2], mask[:, 1:2])
    assert torch.equal(one.values, model.logits(model.adapt(support), query, mask).values[:, 1:2])
    hidden = dataclasses.replace(support, task_mask=torch.zeros(2, dtype=torch.bool))
    assert not torch.allclose(model.adapt(hidden)["vectors"], model.adapt(support)["vectors"])


def test_gradients_reach_all_of_the_head_and_the_encoder():
    model, (support, query, mask) = head(), episode()
    support.x.requires_grad_(True)
    logits = model.logits(model.adapt(support), query, mask)
    y = torch.zeros(*mask.shape, 2)
    y[..., NONE, :] = 1
    span(logits, y, mask, mask.any(-1)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert support.x.grad[support.row_mask].abs().sum() > 0 and not support.x.grad[~support.row_mask].any()


# --- training and adapting -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """The tiny encoder, all of it, and the head, trained on runs of letters."""
    model = mt.MetaModel.from_encoder(mt.EncoderConfig(str(tiny_folder), tuning="full"))
    config = mt.TrainConfig(
        output_dir=str(tmp_path_factory.mktemp("runs")),
        meta_steps=150,
        meta_batch_size=4,
        meta_lr=0.01,
        encoder_lr=3e-3,
        eval_steps=75,
    )
    shape = mt.EpisodeConfig(k_shot=(0, 4), n_query=8, n_outside=2)
    tasks = [find_the_run(f"runs {i}", rows=120, seed=i) for i in range(2)]
    mt.meta_train(model, tasks, eval_tasks=[find_the_run("unseen", seed=9)], episodes=shape, config=config)
    return model


def test_training_learns_to_find_answers_and_to_say_that_there_is_none(trained, tiny_folder):
    task, shape = find_the_run("new", rows=60, seed=5), mt.EpisodeConfig(k_shot=4, n_query=10, n_outside=5)
    report = mt.evaluate_tasks(trained, [task], shape, 8, metric="squad_v2_em", progress=False)
    assert report.mean("trained")[0] > 0.55 > 0.35 > report.mean("untrained")[0]
    always = mt.evaluate_tasks(trained, [task], shape, 8, metric="squad_em", baselines=(), progress=False)
    assert always.mean("trained")[0] < report.mean("trained")[0]  # a third of the questions and more have no answer
    assert "squad_v2_em in %" in str(report)


def test_untrained_starts_from_seed_0(tiny):
    """Whose random vectors decide what it answers to spans: other starts stand beside it as further heads."""
    first, other = (mt.MetaModel.from_encoder(tiny, seed=seed) for seed in (0, 1))
    task, shape = find_the_run("new", rows=60, seed=5), mt.EpisodeConfig(k_shot=4, n_query=10)
    report = mt.evaluate_tasks(
        other, [task], shape, 4, seed=3, metric="squad_f1", baselines=("untrained",), heads={"seed 0": first}, progress=False
    )
    scores = report.scores["new"]
    assert np.array_equal(scores["untrained"], scores["seed 0"]) and not np.array_equal(scores["untrained"], scores["trained"])


def test_an_adapted_model_answers_in_the_words_of_the_context(trained, tmp_path):
    task = find_the_run("new", rows=30, seed=6)
    rows, asked = task.inputs()[:6], task.inputs()[6:]
    model = trained.adapt(rows, kind="span", description="runs")
    answers = model.predict([{k: row[k] for k in ("question", "context")} for row in asked])
    for answer, row in zip(answers, asked, strict=True):
        assert list(answer) == ["text", "start", "end", "score"] and 0 <= answer["score"] <= 1
        assert row["context"][answer["start"] : answer["end"]] == answer["text"]
    right = [answer["text"] == (row["answers"]["text"] or [""])[0] for answer, row in zip(answers, asked, strict=True)]
    assert np.mean(right) > 0.5 and any(answer["text"] == "" for answer in answers)
    with pytest.raises(DataError, match="n: expected a whole number of at least 1, got -1"):
        model.answers(asked[:2], n=-1)
    best = model.answers(asked[:2], n=3)
    assert [len(found) for found in best] == [3, 3] and all(a["score"] >= b["score"] for a, b in zip(best[0], best[0][1:]))
    alone = [model.predict([row])[0] for row in asked]  # whatever else is asked
    assert [a["text"] for a in alone] == [a["text"] for a in answers]
    model.save_pretrained(tmp_path / "adapted")
    assert mt.AdaptedModel.from_pretrained(tmp_path / "adapted").predict(asked) == answers
    trained.save_pretrained(tmp_path / "model")
    again = mt.MetaModel.from_pretrained(tmp_path / "model")
    assert again.kinds == ("span",) and again.adapt(rows, kind="span", description="runs").predict(asked) == answers
    assert trained.adapt(task.select(range(6)), description="runs").predict(asked) == answers


def test_long_contexts_say_how_far_they_are_read(trained, monkeypatch):
    bars = []
    monkeypatch.setattr("tqdm.auto.tqdm", lambda *args, **settings: bars.append((Mock(), settings)) or bars[-1][0])
    monkeypatch.setattr("metatext.questions.CHUNK", 2)
    reader = trained.adapt([], kind="span")
    rows = [{"question": "x", "context": "abc " * 400}]
    reader.predict_table(rows, progress=True)
    bar, settings = next((bar, settings) for bar, settings in bars if settings["unit"] == "window")
    assert settings["disable"] is None and bar.update.call_count > 1
    assert sum(call.args[0] for call in bar.update.call_args_list) == settings["total"]


def test_an_adapted_model_and_an_evaluation_say_the_same(trained):
    task = find_the_run("new", rows=40, seed=7)
    features = encode_tasks(FeatureStore(trained.encoder, progress=False), [task])
    batch = draw_for(features, mt.EpisodeConfig(k_shot=3, n_query=12), 1, 0)
    features = features.encoded(batch)
    with torch.no_grad():
        values = trained(features.gather(batch)).values.numpy()
    texts, _ = next(features.judged(values, batch, "squad_v2_f1"))
    model = trained.adapt(task.select(batch.support[0]))
    assert [answer["text"] for answer in model.predict(task.select(batch.query[0]).inputs())] == texts


def test_without_examples(trained, tmp_path):
    asked = find_the_run("new", rows=10, seed=8).inputs()
    model = trained.adapt([], kind="span", description="runs")
    answers = model.predict(asked)
    assert len(answers) == 10
    model.save_pretrained(tmp_path)
    assert mt.AdaptedModel.from_pretrained(tmp_path).predict(asked) == answers
    assert trained.adapt([], kind="span").predict([]) == []
    task = find_the_run("new", rows=40, seed=7)
    report = mt.evaluate_tasks(
        trained, [task], mt.EpisodeConfig(k_shot=0, n_query=8), 3, baselines=("without_examples", "fine_tuning"), progress=False
    )
    scores = report.scores["new"]
    assert (scores["trained"] == scores["without_examples"]).all() and np.isnan(scores["fine_tuning"]).all()


def test_fine_tuning_on_the_examples_alone(trained, monkeypatch):
    monkeypatch.setattr("metatext.rivals.SPAN_STEPS", 25)
    shape = mt.EpisodeConfig(k_shot=24, n_query=8)
    report = mt.evaluate_tasks(
        trained, [find_the_run("new", rows=40, seed=7)], shape, 2, baselines=("fine_tuning",), progress=False
    )
    means = [report.mean(name)[0] for name in ("trained", "fine_tuning")]
    assert 0 < means[1] <= means[0]


WRONG = {
    "one row": (
        {"question": "a", "context": "b"},
        r"inputs: expected a list of \{'question': ..., 'context': ...\}, got one dict",
    ),
    "a number of them": (3, r"inputs: expected a list of \{'question': .*, got one int; write \[row\]"),
    "a text": (["a"], "inputs: row 0 has no 'question' and no 'context'"),
    "no context": ([{"question": "a"}], "inputs: row 0 has no 'context'"),
    "empty": ([{"question": "a", "context": "b"}, {"question": "a", "context": ""}], "row 1 has the context ''; expected a text"),
    "a number": ([{"question": 3, "context": "b"}], "row 0 has the question 3; expected a text that is not empty"),
}


@pytest.mark.parametrize("inputs, message", WRONG.values(), ids=WRONG)
def test_questions_that_cannot_be_asked(trained, inputs, message):
    model = trained.adapt(find_the_run(rows=5))
    with pytest.raises(DataError, match=message):
        model.predict(inputs)


def test_what_spans_do_not_have(trained, tmp_path):
    rows = find_the_run(rows=5).inputs()
    with pytest.raises(DataError, match="adapt: targets: a span task has none; each input brings its answers"):
        trained.adapt(rows, ["a"] * 5, kind="span")
    with pytest.raises(DataError, match="adapt: targets: a span task has none"):
        trained.adapt(rows, (target for target in "aaaaa"), kind="span")
    with pytest.raises(DataError, match="adapt: label_names: a span task has none"):
        trained.adapt(rows, kind="span", label_names=["a"])
    with pytest.raises(DataError, match="inputs: row 0 has no 'answers'; expected a dict of question, context, answers"):
        trained.adapt([{"question": "a", "context": "b"}], kind="span")
    model = trained.adapt((row for row in rows), [], kind="span")
    assert model.evaluate(row for row in rows) == model.evaluate(rows)
    with pytest.raises(DataError, match="add_examples: a task of kind span has no such change; adapt anew to all examples"):
        model.add_examples(rows)
    for call in (model.predict_proba, model.confidence, model.risk):
        with pytest.raises(DataError, match="there is none for a task of kind span"):
            call(rows)
    with pytest.raises(DataError, match="max_risk: there is none"):
        model.predict(rows, max_risk=0.1)
    classifier = mt.MetaModel.from_encoder("embedded").adapt(["a", "b"], ["x", "y"])
    with pytest.raises(DataError, match="answers: there is none for a task of kind classification"):
        classifier.answers(rows)
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "support.y": tensors["support.y"][..., 0].contiguous()}, tmp_path / "model.safetensors")
    with pytest.raises(StorageError):
        mt.AdaptedModel.from_pretrained(tmp_path)
