"""An encoder that learns: what moves and what stays, on every architecture; bounded memory; what is saved."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, random_encoder
from scripts.train_head import find_the_run, letter_task, letter_tasks, pairs_task
from transformers import AutoConfig, AutoModel

import metatext as mt
from metatext import objective, training, tuning
from metatext.encoder import Encoder
from metatext.episodes import train_episodes
from metatext.features import encode_inputs, encode_tasks
from metatext.loading import EncoderError
from metatext.settings import ConfigError
from metatext.storage import StorageError
from metatext.store import FeatureStore, TokenStore
from metatext.teacher import Teacher, load_teacher
from metatext.training import meta_train

EPISODES = mt.EpisodeConfig(n_way=(2, 4), k_shot=(0, 3), n_query=3, n_outside=2)
TEXTS = ["hello there", "a", "abc" * 9, "zz zz", "hello there"]
PAIRS = [("ab", "c"), ("d", "efg"), ("hello", "there")]


def encoder_of(folder, tuning="lora", **settings) -> Encoder:
    return Encoder.load(mt.EncoderConfig(str(folder), tuning=tuning, **{"lora_rank": 4, "batch_tokens": 64, **settings}))


def model_of(folder, tuning="lora", head="gp", **settings) -> mt.MetaModel:
    return mt.MetaModel.from_encoder(encoder_of(folder, tuning, **settings), mt.HeadConfig(head))


def loop(folder, **settings) -> mt.TrainConfig:
    common = {"meta_steps": 3, "meta_batch_size": 3, "encoder_lr": 1e-2, "meta_lr": 1e-2, "eval_episodes": 4}
    return mt.TrainConfig(output_dir=str(folder), **{**common, **settings})


def shaken(encoder: Encoder) -> Encoder:
    """With updates that are not zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in tuning.tuned(encoder.backbone).values():
            p += 0.05 * torch.randn_like(p)
    return encoder


def state(module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


# --- what learns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lora", "full"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_learns_moves_and_the_rest_stays(tiny_folder, tmp_path, kind, how):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "encoder"))
    random_encoder(folder, kind)
    model = model_of(folder, how)
    learning = tuning.tuned(model.encoder.backbone)
    assert all("lora_" in name for name in learning) is (how == "lora")
    linear = [name for name, part in model.encoder.backbone.named_modules() if isinstance(part, torch.nn.Linear)]
    if how == "lora":  # every linear layer of the architecture has its update
        assert {name.split(".lora_")[0] for name in learning} == {
            name.removesuffix(".base_layer") for name in linear if "lora_" not in name
        }
    before = state(model)
    start = encode_inputs(model.encoder.pretrained(), TEXTS)
    meta_train(model, [*letter_tasks(2), pairs_task()], episodes=EPISODES, config=loop(tmp_path / "run"))
    after = state(model)
    trained = {f"encoder.backbone.{name}" for name in learning} | {
        n for n, p in model.heads.named_parameters("heads") if p.requires_grad
    }
    still = [name for name in trained if torch.equal(before[name], after[name]) and not unread(name)]
    assert still == []
    assert [name for name in set(after) - trained if not torch.equal(before[name], after[name])] == []
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert not torch.allclose(encode_inputs(model.encoder.frozen(), TEXTS), start, atol=1e-4)
    loaded = mt.MetaModel.from_pretrained(tmp_path / "run")
    examples = ["abc", "xyz", "aab"], ["x", "y", "x"]
    assert np.allclose(loaded.adapt(*examples).predict_proba(TEXTS), model.adapt(*examples).predict_proba(TEXTS), atol=1e-5)


def unread(name: str) -> bool:
    """Weights of the head that gp's episodes may not reach in three steps (they are tested with the heads)."""
    return name.startswith("heads.")


@pytest.mark.parametrize("how", ["lora", "full", "frozen"])
def test_features_start_as_the_pretrained_ones(tiny, tiny_folder, how):
    encoder = encoder_of(tiny_folder, how)
    assert encoder.fingerprint == tiny.fingerprint
    tokens = encoder.tokenize(TEXTS)
    assert torch.allclose(encoder.learn(tokens), tiny.encode(TEXTS), atol=1e-6)
    assert encoder.learn(tokens).requires_grad is (how != "frozen")
    assert encoder.frozen().is_tuned is False


# --- the pretrained encoder beside the trained one -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lora", "full"])
def test_cosines_are_means_of_both_readings(tiny, tiny_folder, how):
    encoder = encoder_of(tiny_folder, how, pretrained_share=0.25)
    assert (encoder.dim, encoder.frozen().dim, encoder.pretrained().dim) == (64, 64, 32)
    cosines = lambda x: x @ x.T  # noqa: E731
    pretrained = cosines(tiny.encode(TEXTS))
    assert torch.allclose(cosines(encoder.encode(TEXTS)), pretrained, atol=1e-6)  # both readings are the same at the start
    alone = shaken(encoder_of(tiny_folder, how))
    shaken(encoder)
    trained = cosines(alone.encode(TEXTS))
    assert not torch.allclose(trained, pretrained, atol=1e-3)
    for vectors in (encoder.encode(TEXTS), encoder.frozen().encode(TEXTS), encoder.learn(encoder.tokenize(TEXTS))):
        assert torch.allclose(cosines(vectors), 0.75 * trained + 0.25 * pretrained, atol=1e-5)
    assert torch.allclose(encoder.pretrained().encode(TEXTS), tiny.encode(TEXTS), atol=1e-6)
    assert encoder.frozen().base is encoder.base  # not copied: it never changes
    assert len({encoder.frozen().key, alone.frozen().key, encoder_of(tiny_folder, how, pretrained_share=0.25).frozen().key}) == 3


def test_the_pretrained_encoder_may_pool_in_another_way(tiny_folder, tmp_path):
    model = model_of(tiny_folder, "lora", "gp", pretrained_share=0.25, pretrained_pooling="words")
    words = mt.Encoder.load(mt.EncoderConfig(str(tiny_folder), pooling="words")).encode(TEXTS)
    alone = shaken(encoder_of(tiny_folder, "lora"))
    encoder, same = shaken(model.encoder), shaken(encoder_of(tiny_folder, "lora", pretrained_share=0.25))
    assert not torch.allclose(encoder.encode(TEXTS), same.encode(TEXTS), atol=1e-3)
    assert torch.allclose(encoder.encode(TEXTS), torch.cat([0.75**0.5 * alone.encode(TEXTS), 0.5 * words], 1), atol=1e-5)
    assert encoder.frozen().key != same.frozen().key  # neither reads the other's features
    tokens = [reader.learn(reader.tokenize(TEXTS), pooled=False) for reader in (encoder, same)]
    assert torch.equal(*tokens)
    model.save_pretrained(tmp_path / "saved")
    loaded = mt.MetaModel.from_pretrained(tmp_path / "saved").encoder
    assert torch.allclose(loaded.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6) and loaded.base_pooling == "words"


@pytest.mark.parametrize("head", ["gp", "attention", "metanet"])
def test_the_pretrained_encoder_beside_it_is_trained_with_and_saved_by_name_only(tiny_folder, tmp_path, head):
    model = model_of(tiny_folder, "lora", head, pretrained_share=0.25, dropout=0.2)
    before = state(model)
    tasks = [*letter_tasks(2), pairs_task()]
    meta_train(model, tasks, episodes=EPISODES, config=loop(tmp_path / "run", distillation=1.0))
    after = state(model)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("encoder.base") for name in moved)
    assert any(name.startswith("encoder.backbone") for name in moved)
    assert all("lora_" in name for name in model.tensors() if name.startswith("encoder."))
    loaded = mt.MetaModel.from_pretrained(tmp_path / "run")
    for inputs in (["abc", "xyz", "aab"], PAIRS):
        one, other = (m.adapt(inputs, ["x", "y", "x"]) for m in (model, loaded))
        assert np.allclose(one.predict_proba(inputs), other.predict_proba(inputs), atol=1e-5)
    one.save_pretrained(tmp_path / "adapted")
    again = mt.AdaptedModel.from_pretrained(tmp_path / "adapted")
    assert np.allclose(one.predict_proba(PAIRS), again.predict_proba(PAIRS), atol=1e-5)


def test_updates_start_from_the_same_numbers_whatever_was_drawn_before(tiny_folder):
    first = state(encoder_of(tiny_folder))
    torch.manual_seed(5)
    drawn = torch.random.get_rng_state()
    assert all(torch.equal(tensor, first[name]) for name, tensor in state(encoder_of(tiny_folder)).items())
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_named_targets_alone_get_updates(tiny_folder):
    names = tuning.tuned(encoder_of(tiny_folder, lora_targets=("query", "value")).backbone)
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names} == {"query", "value"}
    for wrong in (("qwery",), ("query", "qwery")):  # one that is there does not hide one that is not
        with pytest.raises(ConfigError, match=r"lora_targets: qwery: .* has no such; it has dense, key, query, value"):
            encoder_of(tiny_folder, lora_targets=wrong)
    with pytest.raises(ConfigError, match="lora_targets: word_embeddings"):
        encoder_of(tiny_folder, lora_targets=("word_embeddings",))


def test_dropout_is_as_asked(tiny_folder):
    encoder = encoder_of(tiny_folder, "full", dropout=0.3)
    tokens = encoder.tokenize(TEXTS)
    assert {part.p for part in encoder.modules() if isinstance(part, torch.nn.Dropout)} == {0.3}
    assert torch.equal(encoder.eval().learn(tokens), encoder.learn(tokens))
    assert not torch.equal(encoder.train().learn(tokens), encoder.learn(tokens))
    without = encoder_of(tiny_folder, "full").train()
    assert torch.equal(without.learn(tokens), without.learn(tokens))


@pytest.mark.parametrize("mode", [True, False])
def test_encoding_leaves_the_mode(tiny_folder, mode):
    encoder = encoder_of(tiny_folder, "full", dropout=0.3)
    assert not encoder.training
    encoder.train(mode)
    first = encoder.encode(TEXTS)
    assert torch.equal(first, encoder.encode(TEXTS))  # never with dropout
    assert (encoder.training, encoder.backbone.training) == (mode, mode)


# --- gradients -------------------------------------------------------------------------------------------------------


def gradients(encoder: Encoder, texts) -> dict[str, torch.Tensor]:
    encoder.zero_grad()
    vectors = encoder.learn(encoder.tokenize(texts))
    (vectors * torch.arange(vectors.numel()).reshape(vectors.shape).to(vectors).sin()).sum().backward()
    return {name: p.grad.clone() for name, p in tuning.tuned(encoder.backbone).items()}


@pytest.mark.parametrize(
    "settings", [{"memory_tokens": 0}, {"memory_tokens": 70}, {"gradient_checkpointing": True}, {"batch_tokens": 16}]
)
@pytest.mark.parametrize("how", ["lora", "full"])
def test_bounded_memory_has_the_same_gradients(tiny_folder, how, settings):
    texts = ["abc" * (i % 7 + 1) for i in range(20)]
    plain, bounded = (
        shaken(encoder_of(tiny_folder, how, **more)).double().train() for more in ({"memory_tokens": 10**6}, settings)
    )
    expected, found = gradients(plain, texts), gradients(bounded, texts)
    assert all((found[name] - expected[name]).abs().max() < 1e-12 for name in expected)
    assert max(g.abs().max() for g in expected.values()) > 1e-3


def test_memory_is_bounded_by_the_budget(tiny_folder):
    """Bytes that the graph holds between forward and backward pass."""

    def held(count: int, **settings) -> int:
        encoder, sizes = encoder_of(tiny_folder, "full", **settings).train(), {}
        pack = lambda t: sizes.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            encoder.learn(encoder.tokenize([f"{'abcdefgh'[i % 8]} text {i}" for i in range(count)]))
        return sum(sizes.values())

    unbounded = held(64, memory_tokens=10**6)
    assert held(64, memory_tokens=64) < unbounded / 4
    assert held(64, gradient_checkpointing=True, memory_tokens=10**6) < unbounded / 2


def test_order_of_texts_does_not_matter(tiny_folder):
    encoder = shaken(encoder_of(tiny_folder)).double()
    tokens = encoder.tokenize(TEXTS)
    order = np.array([3, 0, 4, 1, 2])
    assert torch.allclose(encoder.learn(tokens[order]), encoder.learn(tokens)[order], atol=1e-12)


@pytest.mark.parametrize("how", ["lora", "full"])
def test_episodes_read_from_texts_are_those_of_vectors(tiny_folder, tmp_path, how):
    """What the training path shows a head is what evaluation shows it: pairs, padding, hidden names and all."""
    encoder = shaken(encoder_of(tiny_folder, how)).eval()
    tasks = [*letter_tasks(2), pairs_task()]
    learning = encode_tasks(TokenStore(encoder), tasks)
    stored = encode_tasks(FeatureStore(encoder, tmp_path, progress=False), tasks)
    shape = mt.EpisodeConfig(n_way=(2, 4), k_shot=(0, 3), n_query=2, n_outside=2, name_dropout=0.3, description_dropout=0.5)
    batch = mt.episodes.draw_episodes(learning.pool, shape, np.array([0, 1, 2, 2]), np.random.default_rng(0))
    read, vectors, later = learning.gather(batch).read(encoder), stored.gather(batch), learning.encoded(batch).gather(batch)
    for other in (vectors, later):
        for name in ("x", "y", "label_x", "task_x", "row_mask", "class_mask", "label_mask", "task_mask"):
            assert torch.allclose(getattr(read.support, name).float(), getattr(other.support, name).float(), atol=1e-5), name
        assert torch.allclose(read.query, other.query, atol=1e-5)
        assert torch.equal(read.query_y, other.query_y)
    assert read.query.requires_grad
    assert not vectors.query.requires_grad


def test_each_distinct_text_is_read_once(tiny_folder, monkeypatch):
    encoder = encoder_of(tiny_folder)
    features = encode_tasks(TokenStore(encoder), letter_tasks(2))
    batch = mt.episodes.draw_episodes(features.pool, EPISODES, np.array([0, 0, 0, 1, 1, 1]), np.random.default_rng(0))
    seen, forward = [], encoder.forward
    monkeypatch.setattr(
        encoder, "forward", lambda ids, *rest, pooled: seen.extend(map(tuple, ids.tolist())) or forward(ids, *rest)
    )
    features.gather(batch).read(encoder)
    assert len(seen) == len(set(seen)) == len(features.text_ids(batch))
    assert (batch.support >= 0).sum() + (batch.query >= 0).sum() > len(seen) - 20  # episodes of one task share rows and names


# --- frozen copies and averages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lora", "full"])
def test_frozen_copy_follows_the_weights(tiny_folder, how):
    encoder = shaken(encoder_of(tiny_folder, how)).eval()
    tokens = encoder.tokenize(TEXTS)
    copy = encoder.frozen()
    assert encoder.frozen() is copy
    assert not any("lora" in name for name, _ in copy.named_parameters())
    assert not any(p.requires_grad for p in copy.parameters())
    assert torch.allclose(copy.encode(TEXTS), encoder.learn(tokens), atol=1e-5)
    old = copy.encode(TEXTS)
    assert encoder.double().frozen().backbone.dtype == torch.float64
    shaken(encoder.float())
    assert encoder.frozen() is not copy
    assert encoder.frozen().key != copy.key
    assert torch.equal(copy.encode(TEXTS), old)
    assert torch.allclose(encoder.frozen().encode(TEXTS), encoder.learn(tokens), atol=1e-5)


@pytest.mark.parametrize("how", ["lora", "full"])
def test_share_of_what_was_learned(tiny_folder, how):
    encoder = shaken(encoder_of(tiny_folder, how))
    base = encoder.pretrained()
    trained = {name: tensor.clone() for name, tensor in encoder.tuned_tensors().items()}
    weight = lambda e: e.frozen().backbone.encoder.layer[1].output.dense.weight.detach().clone()  # noqa: E731
    start, end = weight(base), weight(encoder)
    for share in (0.0, 0.25, 1.0):
        with objective.averaged(encoder, base, share):
            assert torch.allclose(weight(encoder), start + share * (end - start), atol=1e-6)
        assert all(torch.equal(tensor, trained[name]) for name, tensor in encoder.tuned_tensors().items())


def test_share_is_what_a_run_keeps(tiny_folder, tmp_path):
    finals = {}
    for share in (0.0, 0.5, 1.0):
        model = model_of(tiny_folder)
        meta_train(model, letter_tasks(2), episodes=EPISODES, config=loop(tmp_path / str(share), encoder_share=share))
        finals[share] = model.encoder.tuned_tensors()
    for name, whole in finals[1.0].items():
        assert torch.allclose(finals[0.5][name], whole * (0.5 if "lora_B" in name else 1.0))
        assert not ("lora_B" in name and finals[0.0][name].any())


def test_at_a_learning_rate_of_0_what_was_learned_reads_each_text_once(tiny_folder, tmp_path, monkeypatch):
    """The head learns from the very features that it would see if every step read its texts anew."""
    tasks, heads = letter_tasks(2), []
    for share in (1.0, 0.999999):  # a share of what was learned is read anew
        model = model_of(tiny_folder)
        shaken(model.encoder)
        before = {name: tensor.clone() for name, tensor in model.encoder.tuned_tensors().items()}
        config = loop(tmp_path / str(share), encoder_lr=0.0, encoder_share=share, meta_steps=6, max_grad_norm=0.0)
        with monkeypatch.context() as patch:
            if share == 1:
                patch.setattr(Encoder, "learn", None)
            meta_train(model, tasks, episodes=EPISODES, config=config)
        assert share < 1 or all(torch.equal(before[name], tensor) for name, tensor in model.encoder.tuned_tensors().items())
        heads.append(state(model.heads))
        start = state(model_of(tiny_folder).heads)
    assert any(not torch.equal(tensor, start[name]) for name, tensor in heads[0].items())
    assert all(torch.allclose(tensor, heads[1][name], atol=1e-4) for name, tensor in heads[0].items())


def test_distillation_holds_the_encoder_back(tiny_folder, tmp_path):
    tasks = letter_tasks(2)
    base = encoder_of(tiny_folder, "frozen")
    texts = tasks[0].inputs()
    kept = base.encode(texts) @ base.encode(texts).T

    def drift(**settings) -> float:
        model = model_of(tiny_folder, "full")
        config = loop(tmp_path / str(len(list(tmp_path.iterdir()))), meta_steps=8, encoder_lr=3e-3, **settings)
        meta_train(model, tasks, episodes=EPISODES, config=config)
        vectors = model.encoder.frozen().encode(texts)
        return float((vectors @ vectors.T - kept).square().mean())

    free = drift()
    assert drift(distillation=100.0) < free / 4
    assert drift(distillation=100.0, distillation_tasks=["task 0"]) < free / 2
    assert drift(distillation=0.0, distillation_tasks=["task 0"]) == pytest.approx(free, rel=1e-3)


def test_an_encoder_learns_from_a_wider_one(tiny_folder, tmp_path):
    tasks = letter_tasks(2)
    shutil.copytree(tiny_folder, tmp_path / "teacher")
    shape = AutoConfig.from_pretrained(tiny_folder, hidden_size=48)
    torch.manual_seed(1)
    AutoModel.from_config(shape).save_pretrained(tmp_path / "teacher")
    teacher = encoder_of(tmp_path / "teacher", "frozen")
    texts = tasks[0].inputs()
    taught = teacher.encode(texts) @ teacher.encode(texts).T

    def distance(encoder) -> float:
        vectors = encoder.frozen().encode(texts)
        return float((vectors @ vectors.T - taught).square().mean())

    model = model_of(tiny_folder, "full")
    start = distance(model.encoder)
    config = loop(
        tmp_path / "run", meta_steps=30, encoder_lr=3e-3, distillation=300.0, distillation_teacher=str(tmp_path / "teacher")
    )
    result = meta_train(model, tasks, episodes=EPISODES, config=config)
    assert distance(model.encoder) < start / 3
    again = meta_train(model_of(tiny_folder, "full"), tasks, episodes=EPISODES, config=config)
    assert again.history == result.history
    AutoModel.from_config(shape).save_pretrained(tmp_path / "teacher")  # other weights under the same name
    with pytest.raises(ConfigError, match="teacher"):
        meta_train(model_of(tiny_folder, "full"), tasks, episodes=EPISODES, config=config)


def test_a_teacher_that_reads_in_another_way_is_another_run(tiny_folder, tmp_path):
    """Its weights stay; its folder says now that a text's vector is that of its first token."""
    teacher = shutil.copytree(tiny_folder, tmp_path / "teacher")
    config = loop(tmp_path / "run", distillation=1.0, distillation_teacher=str(teacher), meta_steps=1)
    meta_train(model_of(tiny_folder), letter_tasks(2), episodes=EPISODES, config=config)
    (teacher / "1_Pooling").mkdir()
    (teacher / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    (teacher / "modules.json").write_text('[{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]')
    with pytest.raises(ConfigError, match=r"other settings \(teacher: '"):
        meta_train(model_of(tiny_folder), letter_tasks(2), episodes=EPISODES, config=config)


def test_a_teacher_whose_loss_has_no_weight_is_told(tiny_folder, tmp_path, caplog):
    config = loop(tmp_path / "run", meta_steps=1, distillation_teacher=str(tmp_path / "none"), distillation_tasks=["task 0"])
    meta_train(model_of(tiny_folder), letter_tasks(2), episodes=EPISODES, config=config)
    for name in ("distillation_teacher", "distillation_tasks"):
        assert f"{name} has no effect: distillation, the weight of its loss, is 0" in caplog.text


def test_a_distillation_that_compares_nothing_is_told(tiny_folder, tmp_path, caplog):
    config = loop(tmp_path / "run", meta_steps=1, distillation=1.0, distillation_tasks=["runs"])
    meta_train(model_of(tiny_folder), [*letter_tasks(1), find_the_run()], episodes=EPISODES, config=config)
    assert (
        "distillation has no effect: spans and written answers are not compared" in caplog.text and ": runs (span)" in caplog.text
    )


def test_a_teacher_that_is_not_there_ends_a_run_before_it_begins(tiny_folder, tmp_path):
    config = loop(tmp_path / "run", distillation=1.0, distillation_teacher=str(tmp_path / "none"))
    with pytest.raises(EncoderError, match="none"):
        meta_train(model_of(tiny_folder), letter_tasks(2), episodes=EPISODES, config=config)
    assert not (tmp_path / "run").exists()


def test_a_teacher_takes_no_memory_once_its_vectors_are_kept(tiny_folder, tmp_path, monkeypatch):
    seen, made = [], training.MetaLoss
    monkeypatch.setattr(training, "MetaLoss", lambda model, teacher, anew: seen.append(teacher) or made(model, teacher, anew))
    config = loop(tmp_path / "run", distillation=1.0, meta_steps=1)
    meta_train(model := model_of(tiny_folder), letter_tasks(2), episodes=EPISODES, config=config)
    assert {p.device.type for p in seen[0].store.encoder.parameters()} == {"meta"}
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_a_teacher_reads_the_texts_of_its_tasks_and_no_more_of_them_than_the_learner(tiny_folder, tmp_path):
    encoder, tasks = encoder_of(tiny_folder), letter_tasks(2)
    frozen = load_teacher(encoder, loop(tmp_path, max_text_tokens=5))
    tokens = TokenStore(encoder, 5)
    noisy = mt.EpisodeConfig(n_way=4, k_shot=2, n_query=3, name_noise=0.8)
    features = encode_tasks(tokens, tasks, noisy)
    store = FeatureStore(frozen, tmp_path / "features", progress=False)
    teacher = Teacher(store, tasks[1:], tokens, noisy)
    batch = train_episodes([features.pool], noisy, np.ones(2), 40, seed=0, step=0).part(np.arange(40))[0][1]
    texts = features.gather(batch)
    assert teacher.teaches(texts).tolist() == (batch.task == 1).tolist()
    own = texts[batch.task == 1]
    read, expected = teacher.read(own), own.read(frozen)
    assert torch.allclose(read.query, expected.query, atol=1e-5)  # cut alike
    assert torch.allclose(read.support.x, expected.support.x, atol=1e-5)
    missing = (read.support.label_x == 0).all(-1) & read.support.label_mask
    assert 0 < missing.sum() < missing.numel() / 2  # names borrowed from the other task
    assert torch.allclose(read.support.label_x[~missing], expected.support.label_x[~missing], atol=1e-5)


@pytest.mark.parametrize("how", ["lora", "frozen"])  # whose teacher reads, and which reads itself
def test_features_are_kept_in_the_folder_that_is_named(tiny_folder, tmp_path, how):
    config = loop(tmp_path / "run", distillation=1.0, meta_steps=1)
    meta_train(model_of(tiny_folder, how), letter_tasks(2), episodes=EPISODES, config=config, cache_dir=tmp_path / "kept")
    assert list((tmp_path / "kept").glob("*/*.keys.npy"))
    assert not (tmp_path / "features").exists()  # the default folder of this test
    with pytest.raises(ConfigError, match="cache_dir: expected a text or Path or None, got 7"):
        meta_train(model_of(tiny_folder, how), letter_tasks(2), config=config, cache_dir=7)


@pytest.mark.parametrize("key", ["task_weights", "distillation_tasks"])
def test_settings_that_name_no_task(tiny_folder, tmp_path, key):
    entry = {"task_weights": "task 7=2", "distillation_tasks": "task 7"}[key]
    with pytest.raises(ConfigError, match=rf"{key}: no task is called 'task 7'; did you mean 'task \d'\? Known: task 0, task 1"):
        meta_train(model_of(tiny_folder), letter_tasks(2), config=loop(tmp_path, **{key: [entry]}))


@pytest.mark.parametrize("entry", ["task 0", "task 0=", "task 0=many", "task 0=-1", "=2", "task 0=nan", "task 0=inf"])
def test_task_weights_that_are_none(entry):
    with pytest.raises(ConfigError, match=r"task_weights: expected name=factor"):
        objective.task_weights(letter_tasks(2), mt.TrainConfig(task_weights=[entry]))


def test_task_weights_multiply_sizes():
    tasks = [letter_task("small", rows=4), letter_task("large", rows=9)]  # 16 and 36 rows
    config = mt.TrainConfig(task_size_exponent=0.5, task_weights=["small=3"])
    assert objective.task_weights(tasks, config).tolist() == [12.0, 6.0]
    with pytest.raises(ConfigError, match="every task has the factor 0"):
        objective.task_weights(tasks, mt.TrainConfig(task_weights=["small=0", "large=0"]))


def test_learning_rates_and_decay_of_the_groups(tiny_folder):
    model = model_of(tiny_folder, "full", head="metanet")
    groups = objective.parameter_groups(model, mt.TrainConfig(meta_lr=1e-3, encoder_lr=2e-5, weight_decay=0.1))
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        if p.requires_grad:
            lr = 2e-5 if name.startswith("encoder.") else 1e-3
            assert found.pop(id(p)) == (lr, 0.0 if p.ndim < 2 else 0.1), name
    assert not found
    norms = [p for name, p in model.named_parameters() if "LayerNorm" in name or name.endswith("bias")]
    assert norms and all(p.ndim < 2 for p in norms)


# --- what is saved ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lora", "full"])
def test_round_trip_by_predictions(tiny_folder, tmp_path, how):
    model = model_of(tiny_folder, how)
    shaken(model.encoder)
    model.save_pretrained(tmp_path / "model")
    loaded = mt.MetaModel.from_pretrained(tmp_path / "model")
    assert loaded.encoder.config.tuning == how
    assert all(torch.equal(tensor, loaded.tensors()[name]) for name, tensor in model.tensors().items())
    one, other = (m.adapt(["abc", "xyz", "aab"], ["x", "y", "x"], description="letters") for m in (model, loaded))
    assert np.allclose(one.predict_proba(TEXTS), other.predict_proba(TEXTS), atol=1e-5)
    one.save_pretrained(tmp_path / "adapted")
    again = mt.AdaptedModel.from_pretrained(tmp_path / "adapted")
    assert np.allclose(one.predict_proba(TEXTS), again.predict_proba(TEXTS), atol=1e-5)
    expected = one.predict_proba(TEXTS)
    shaken(model.encoder)  # training on does not reach a classifier that was made before
    assert np.array_equal(one.predict_proba(TEXTS), expected)
    assert not np.allclose(model.adapt(["abc", "xyz", "aab"], ["x", "y", "x"]).predict_proba(TEXTS), expected, atol=1e-3)
    one.save_pretrained(tmp_path / "later")
    assert np.allclose(mt.AdaptedModel.from_pretrained(tmp_path / "later").predict_proba(TEXTS), expected, atol=1e-5)


def test_classifiers_share_what_was_trained(tiny_folder):
    model = model_of(tiny_folder, "full")
    one, other = (model.adapt(["abc", "xyz"], ["x", "y"]) for _ in range(2))
    assert one.encoder is other.encoder
    assert all(one.encoder.learned[name].data_ptr() != p.data_ptr() for name, p in model.encoder.tuned_tensors().items())


def test_a_store_of_before_training_is_refused(tiny_folder, tmp_path):
    model = model_of(tiny_folder)
    store = FeatureStore(model.encoder, tmp_path, progress=False)
    shaken(model.encoder)
    with pytest.raises(ConfigError, match="before it learned; make a new FeatureStore"):
        mt.evaluate_tasks(model, letter_tasks(1), EPISODES, n_episodes=2, store=store, progress=False)


def test_only_training_cuts_texts(tiny_folder, tmp_path, monkeypatch):
    """The head's step and its risk are chosen on texts as they are read afterwards."""
    from metatext import heldout

    lengths = {}
    scores = heldout.episode_scores

    def seen(model, features, batch):
        lengths["unseen"] = features.store.tokens(features.text_ids(batch)).lengths.max()
        return scores(model, features, batch)

    monkeypatch.setattr(heldout, "episode_scores", seen)
    model = model_of(tiny_folder)
    learn = model.encoder.learn
    monkeypatch.setattr(
        model.encoder, "learn", lambda tokens, *rest: lengths.update(training=tokens.lengths.max()) or learn(tokens, *rest)
    )
    meta_train(
        model,
        letter_tasks(2),
        eval_tasks=[letter_task("new", seed=9)],
        episodes=EPISODES,
        config=loop(tmp_path, max_text_tokens=5),
    )
    assert lengths["training"] == 5 < lengths["unseen"]


def test_another_dropout_is_another_run(tiny_folder, tmp_path):
    meta_train(model_of(tiny_folder), letter_tasks(2), episodes=EPISODES, config=loop(tmp_path))
    with pytest.raises(ConfigError, match=r"encoder\.dropout: 0\.0 -> 0\.2"):
        meta_train(model_of(tiny_folder, dropout=0.2), letter_tasks(2), episodes=EPISODES, config=loop(tmp_path))


def test_settings_of_a_learning_encoder_are_said_to_have_no_effect_on_a_frozen_one(tiny_folder, tmp_path, caplog):
    config = loop(tmp_path, distillation=1.0, max_text_tokens=5)
    result = meta_train(model_of(tiny_folder, "frozen"), letter_tasks(2), episodes=EPISODES, config=config)
    assert "distillation has no effect: the encoder is frozen" in caplog.text
    assert "max_text_tokens has no effect" in caplog.text
    assert "encoder_share" not in caplog.text
    assert not any("distillation" in point for point in result.history)
    meta_train(
        model_of(tiny_folder, pretrained_pooling="words"),
        letter_tasks(2),
        episodes=EPISODES,
        config=loop(tmp_path / "x", encoder_lr=0.0),
    )
    assert "pretrained_pooling has no effect: pretrained_share is 0" in caplog.text


def test_distillation_is_logged(tiny_folder, tmp_path):
    config = loop(tmp_path, distillation=1.0, meta_steps=4, logging_steps=2)
    points = meta_train(model_of(tiny_folder), letter_tasks(2), episodes=EPISODES, config=config).history
    assert [point["distillation"] > 0 for point in points] == [True, True]


def test_pairs_round_trip(tiny_folder, tmp_path):
    model = model_of(tiny_folder)
    shaken(model.encoder)
    model.save_pretrained(tmp_path)
    one, other = (m.adapt(PAIRS, ["x", "y", "x"]) for m in (model, mt.MetaModel.from_pretrained(tmp_path)))
    assert np.allclose(one.predict_proba(PAIRS), other.predict_proba(PAIRS), atol=1e-5)


def test_a_given_encoder_cannot_stand_for_a_trained_one(tiny, tiny_folder, tmp_path):
    model = model_of(tiny_folder)
    model.save_pretrained(tmp_path)
    for encoder in (tiny, model.encoder):
        with pytest.raises(EncoderError, match="Leave `encoder` out"):
            mt.MetaModel.from_pretrained(tmp_path, encoder=encoder)


def test_trained_weights_of_another_shape_are_refused(tiny_folder, tmp_path):
    encoder, other = encoder_of(tiny_folder), encoder_of(tiny_folder, lora_rank=2)
    before = state(encoder)
    with pytest.raises(
        EncoderError, match=r"trained weights do not fit .* \(tuning lora\): .*lora_A.* is \(2, 32\), expected \(4, 32\)"
    ):
        encoder.load_tuned(other.tuned_tensors())
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(encoder).items())
    model = model_of(tiny_folder)
    model.save_pretrained(tmp_path)
    from metatext.storage import read_folder, write_folder

    config, tensors = read_folder(tmp_path, "head")
    config.pop("weights")
    write_folder(tmp_path, config, {name: tensor for name, tensor in tensors.items() if "layer.1." not in name})
    with pytest.raises(
        StorageError, match=r"does not fit the head 'gp' and its encoder: encoder\..*layer\.1\..* is None, expected"
    ):
        mt.MetaModel.from_pretrained(tmp_path)


def test_the_pretrained_encoder_is_loaded_as_the_trained_one_was(tiny_folder, monkeypatch):
    from metatext import loading

    access, asked = loading.Access(token="t", cache_dir="somewhere", local_files_only=True), []
    load = loading.load_parts
    monkeypatch.setattr(loading, "load_parts", lambda *args: asked.append(args[3]) or load(*args[:3], loading.Access()))
    encoder = Encoder.load(mt.EncoderConfig(str(tiny_folder), tuning="lora"), access=access)
    encoder.pretrained()
    encoder.frozen()
    assert asked == [access, access]


def test_a_frozen_copy_of_what_learned_is_not_saved_without_it(tiny_folder, tmp_path):
    model = mt.MetaModel.from_encoder(shaken(encoder_of(tiny_folder)).frozen())
    with pytest.raises(StorageError, match="a frozen copy of one that has learned"):
        model.save_pretrained(tmp_path / "model")
    with pytest.raises(StorageError, match="a frozen copy of one that has learned"):  # and nobody trains for nothing
        meta_train(model, letter_tasks(2), episodes=EPISODES, config=loop(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("head", ["gp", "attention", "metanet"])
@pytest.mark.parametrize("how", ["frozen", "lora"])
def test_a_model_in_half_precision_adapts(tiny_folder, how, head):
    """The encoder reads in bfloat16, the head solves in float32 with the weights that it had."""
    model = model_of(tiny_folder, how, head)
    before = state(model.heads)
    expected = model.adapt(["aa", "ab", "xy"], ["p", "p", "q"]).predict_proba(["ab", "yx"])
    model.to(torch.bfloat16)
    assert next(model.encoder.parameters()).dtype == torch.bfloat16
    assert all(torch.equal(p, before[name]) and p.dtype == torch.float32 for name, p in model.heads.named_parameters())
    found = model.adapt(["aa", "ab", "xy"], ["p", "p", "q"]).predict_proba(["ab", "yx"])
    assert np.abs(found - expected).max() < 0.1
    assert model.to(torch.float64).head is model.heads["classification"]
    assert next(model.heads.parameters()).dtype == torch.float64


def test_what_learned_in_half_precision_is_loaded_again(tiny_folder, tmp_path):
    model = model_of(tiny_folder, "frozen").to(torch.bfloat16)
    texts, labels = [f"{c}{i}" for c in "ab" for i in range(10)], ["a"] * 10 + ["b"] * 10
    clf = mt.finetune(model, texts, labels, mt.FinetuneConfig(num_train_epochs=2, encoder_lr=0.01, learning_rate=0.1))
    assert clf.finetuning["kept"] == "fine-tuned"
    clf.save_pretrained(tmp_path)
    loaded = mt.AdaptedModel.from_pretrained(tmp_path)
    assert np.abs(loaded.predict_proba(["a1", "b2"]) - clf.predict_proba(["a1", "b2"])).max() < 0.1
