"""The inner loop over the encoder's low-rank weights: gradient identities, memory, and what a task keeps."""

from __future__ import annotations

import dataclasses
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scripts.train_head import letter_task, letter_tasks

import metatext as mt
from metatext import tuning
from metatext.episodes import draw_episodes
from metatext.features import encode_tasks
from metatext.losses import classification, meta_loss
from metatext.maml import support_loss
from metatext.representation import Support
from metatext.settings import ConfigError
from metatext.store import TokenStore
from metatext.training import TrainingError, meta_train

SHAPE = mt.EpisodeConfig(n_way=(2, 3), k_shot=(1, 2), n_query=2)
EXAMPLES = ["abc", "xyz", "aab", "zzy"], ["x", "y", "x", "y"]
TEXTS = ["hello there", "a", "abc" * 9, "zz zz"]


def model_of(folder, *, double=True, inner=None, **head) -> mt.MetaModel:
    """Low-rank weights that are not at their start, where half of the gradients are zero."""
    encoder = mt.Encoder.load(mt.EncoderConfig(str(folder), tuning="lora", lora_rank=2, **(inner or {})))
    model = mt.MetaModel.from_encoder(encoder, mt.HeadConfig("inner_loop", **{"encoder_steps": 2, "inner_steps": 2, **head}))
    torch.manual_seed(1)
    with torch.no_grad():
        for p in tuning.tuned(encoder.backbone).values():
            p += 0.05 * torch.randn_like(p)
    return model.double() if double else model


def episodes_of(model, n=2, shape=SHAPE, seed=0):
    features = encode_tasks(TokenStore(model.encoder), letter_tasks(2))
    batch = draw_episodes(features.pool, shape, np.arange(n) % 2, np.random.default_rng(seed))
    return features.gather(batch)


def loss_of(model, data) -> torch.Tensor:
    episodes = model.read(data)
    return meta_loss(classification(model(episodes), episodes.query_y, episodes.query_mask, episodes.outside))


def gradients(model, data) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = loss_of(model, data)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
def test_second_order_against_finite_differences(tiny_folder, again):
    model = model_of(tiny_folder, checkpoint_steps=again)
    data = episodes_of(model)
    _, found = gradients(model, data)
    generator = torch.Generator().manual_seed(0)
    checked = [n for n in found if n.endswith(("rate", "sharpness", "layer.0.attention.self.query.lora_A.default.weight"))]
    checked += [n for n in found if n.endswith(("layer.1.output.dense.lora_B.default.weight", "temperature.log_scale"))]
    assert len(checked) == 6
    for name in checked:
        parameter = dict(model.named_parameters())[name]
        direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-5 * direction
                ends.append(loss_of(model, data).item())
                parameter -= sign * 1e-5 * direction
        slope = (ends[0] - ends[1]) / 2e-5
        assert float((found[name] * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def by_hand(model, data, first_order: bool) -> dict[str, torch.Tensor]:
    """One episode, written out: steps on the weights, then the loss of the queries under what they lead to."""
    encoder, head = model.encoder, model.head
    start = {name: p for name, p in model.named_parameters() if "lora_" in name}
    support = data.without_queries()
    short = {name: name.removeprefix("encoder.backbone.") for name in start}
    values = dict(start)
    for t in range(head.log_encoder_rate.numel()):
        read = support.read(encoder, {short[n]: v for n, v in values.items()}).support.to(torch.float64)
        loss = support_loss(head, read)
        steps = torch.autograd.grad(loss, list(values.values()), create_graph=True)
        steps = [step.detach() for step in steps] if first_order else steps
        values = {n: v - head.log_encoder_rate[t].exp() * step for (n, v), step in zip(values.items(), steps, strict=True)}
    episodes = data.read(encoder, {short[n]: v for n, v in values.items()})
    loss = classification(model(episodes), episodes.query_y, episodes.query_mask, episodes.outside).sum()
    learned = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, learned, allow_unused=True)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradient_is_the_one_written_out(tiny_folder, first_order):
    """First order is second order with the inner gradients as constants."""
    model = model_of(tiny_folder, first_order=first_order)
    data = episodes_of(model, n=1)
    _, found = gradients(model, data)
    expected = by_hand(model, data, first_order)
    assert {n for n in expected if expected[n].any()} == {n for n in found if found[n].any()}
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-12), name


def test_orders_differ(tiny_folder):
    found = [gradients(m, episodes_of(m))[1] for m in (model_of(tiny_folder), model_of(tiny_folder, first_order=True))]
    name = next(n for n in found[0] if "lora_B" in n)
    assert not torch.allclose(found[0][name], found[1][name], rtol=1e-2)


def test_steps_lower_the_support_loss(tiny_folder):
    model = model_of(tiny_folder, encoder_steps=5)
    data = episodes_of(model, n=1)
    with torch.no_grad():
        before = support_loss(model.head, data.read(model.encoder).support.to(torch.float64))
        after = support_loss(model.head, model.read(data).support.to(torch.float64))
    assert after < 0.9 * before


def test_without_rates_it_is_the_loop_on_fixed_features(tiny_folder):
    model = model_of(tiny_folder)
    with torch.no_grad():
        model.head.log_encoder_rate.fill_(-80.0)
    data = episodes_of(model)
    plain = model(data.read(model.encoder))
    assert torch.allclose(model(data).values, plain.values, atol=1e-12)


def test_computing_again_gives_the_same_and_keeps_less(tiny_folder):
    def held(model) -> int:
        sizes = {}
        pack = lambda t: sizes.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss_of(model, episodes_of(model, n=1))
        return sum(sizes.values())

    plain, again = (model_of(tiny_folder, encoder_steps=4, checkpoint_steps=flag) for flag in (False, True))
    (loss, expected), (other, found) = (gradients(model, episodes_of(model)) for model in (plain, again))
    assert other == pytest.approx(loss, abs=1e-12)
    assert all((found[name] - expected[name]).abs().max() < 1e-10 for name in expected)
    assert held(again) < held(plain) / 3


# --- values, not state -----------------------------------------------------------------------------------------------


def test_nothing_is_left_behind(tiny_folder):
    model = model_of(tiny_folder)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = episodes_of(model)
    first = model(data).values
    gradients(model, data)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(model(data).values, first)


def test_a_batch_is_its_episodes_one_by_one(tiny_folder):
    model = model_of(tiny_folder)
    data = episodes_of(model, n=4, shape=mt.EpisodeConfig(n_way=(2, 3), k_shot=(0, 3), n_query=2))
    assert not (data.batch.support >= 0).any(1).all()  # one has no support, and keeps the weights
    together = model(data)
    for i in range(4):
        alone = model(data[i : i + 1])
        assert torch.allclose(together.values[i], alone.values[0], atol=1e-10)
        assert torch.allclose(together.none[i], alone.none[0], atol=1e-10)


@pytest.mark.parametrize("first_order", [False, True])
def test_adapting_is_what_training_does(tiny_folder, tmp_path, first_order):
    model = model_of(tiny_folder, double=False, first_order=first_order).eval()
    task = letter_task("new", classes=2, rows=3, described=False)
    clf = model.adapt(task.inputs(), [task.labels[c] for c in task.targets], label_names=dict(zip(task.labels, task.label_names)))
    weights = clf.encoder.learned
    assert any(not torch.equal(weights[n], p) for n, p in model.encoder.tuned_tensors().items())
    expected = clf.predict_proba(TEXTS)
    clf.save_pretrained(tmp_path)
    assert np.allclose(mt.AdaptedModel.from_pretrained(tmp_path).predict_proba(TEXTS), expected, atol=1e-5)
    model.save_pretrained(tmp_path / "model")
    again = mt.MetaModel.from_pretrained(tmp_path / "model").adapt(*EXAMPLES)
    assert np.allclose(again.predict_proba(TEXTS), model.adapt(*EXAMPLES).predict_proba(TEXTS), atol=1e-5)
    features = encode_tasks(TokenStore(model.encoder), [task])
    shape = mt.EpisodeConfig(n_way=2, k_shot=2, n_query=1, description_dropout=1.0)
    batch = draw_episodes(features.pool, shape, np.zeros(1, int), np.random.default_rng(0))
    values = model(features.gather(batch)).values[0].softmax(-1).detach().numpy()
    rows = task.inputs()
    shown, asked = [rows[i] for i in batch.support[0]], [rows[i] for i in batch.query[0]]
    order = [task.labels[c] for c in batch.classes[0]]
    names = {task.labels[c]: task.label_names[c] for c in batch.classes[0]}
    clf = model.adapt(shown, [order[y] for y in batch.support_y[0]], label_names=names)
    assert np.allclose(clf.predict_proba(asked), values, atol=1e-4)


def test_a_baseline_that_has_no_answer_stands_beside_it(tiny_folder):
    shape = mt.EpisodeConfig(n_way=2, k_shot=1, n_query=2)
    report = mt.evaluate_tasks(
        model_of(tiny_folder, double=False), letter_tasks(1), shape, 2, baselines=("without_examples",), progress=False
    )
    assert "without_examples" in report.methods


def test_threads_that_adapt_at_once(tiny_folder):
    model = model_of(tiny_folder, double=False).eval()
    expected = model.adapt(*EXAMPLES).predict_proba(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: model.adapt(*EXAMPLES).predict_proba(TEXTS), range(12)))
    assert all(np.array_equal(one, expected) for one in found)


def test_zero_shots_keep_the_weights(tiny_folder):
    model = model_of(tiny_folder, double=False)
    clf = model.adapt([], [], label_names=["abc", "xyz"])
    assert clf.encoder is model.encoder.frozen()


# --- in use ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"first_order": True}, {"checkpoint_steps": True}])
def test_training_moves_all_that_learns(tiny_folder, tmp_path, settings):
    model = model_of(tiny_folder, double=False, **settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = mt.TrainConfig(
        output_dir=str(tmp_path),
        meta_steps=20,
        meta_batch_size=2,
        meta_lr=1e-3,
        encoder_lr=1e-3,
        logging_steps=3,
        eval_episodes=2,
    )
    shape = mt.EpisodeConfig(n_way=(2, 3), k_shot=(0, 2), n_query=2, n_outside=1)
    same = episodes_of(model, n=8)  # the losses of a run are of other episodes at every step
    start = loss_of(model, same).item()
    meta_train(model, letter_tasks(2), episodes=shape, config=config)
    assert loss_of(model, same).item() < 0.95 * start
    fixed = {"heads.classification.log_sharpness"} if settings.get("first_order") else set()
    still = [name for name, p in model.named_parameters() if p.requires_grad and torch.equal(p, before[name])]
    assert set(still) <= fixed | {"heads.classification.representation.gamma"}
    config = dataclasses.replace(config, output_dir=str(tmp_path / "more"), meta_steps=2)
    meta_train(model, letter_tasks(2), eval_tasks=[letter_task("unseen", seed=9)], episodes=shape, config=config)
    report = mt.evaluate_tasks(
        model, [letter_task("unseen", seed=9)], SHAPE, n_episodes=3, progress=False, baselines=["untrained"]
    )
    assert np.isfinite(report.mean("trained")[0])


def test_second_order_reads_with_eager_attention_and_says_so(tiny_folder, caplog):
    with caplog.at_level(logging.INFO, logger="metatext.maml"):
        model = model_of(tiny_folder)
    assert model.encoder.backbone.config._attn_implementation == "eager"
    assert "eager attention" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="metatext.maml"):
        first = model_of(tiny_folder, first_order=True)
    assert first.encoder.backbone.config._attn_implementation == "sdpa"
    assert not caplog.text


def test_what_cannot_be():
    with pytest.raises(ConfigError, match=r"encoder_steps: only the head 'inner_loop' .* got 2 with the head 'gp'"):
        mt.HeadConfig("gp", encoder_steps=2)


@pytest.mark.parametrize("tuning_", ["frozen", "full"])
def test_steps_need_low_rank_weights(tiny_folder, tuning_):
    encoder = mt.Encoder.load(mt.EncoderConfig(str(tiny_folder), tuning=tuning_))
    with pytest.raises(
        ConfigError, match=rf"encoder_steps: 1 steps need low-rank updates .* tuning {tuning_}; set tuning to lora"
    ):
        mt.MetaModel.from_encoder(encoder, mt.HeadConfig("inner_loop", encoder_steps=1))


def test_layers_cannot_be_computed_again_with_the_weights_of_a_task(tiny_folder):
    with pytest.raises(ConfigError, match=r"gradient_checkpointing: .*encoder_steps.*checkpoint_steps"):
        model_of(tiny_folder, inner={"gradient_checkpointing": True})


def test_a_compiled_launch_is_refused_in_second_order(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    try:
        with pytest.raises(TrainingError, match=r"second derivative.*--dynamo_backend no, or set first_order"):
            meta_train(model_of(tiny_folder, double=False), letter_tasks(2), config=mt.TrainConfig(output_dir=str(tmp_path)))
    finally:
        AcceleratorState._reset_state(True)


def test_loss_of_the_support_by_hand(tiny_folder):
    """Two classes of one and two rows, a third without: the mean of each class counts alike."""
    model = model_of(tiny_folder, inner_steps=0)
    x = torch.nn.functional.normalize(
        torch.randn(1, 4, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    y = torch.zeros(1, 4, 3, dtype=torch.float64)
    y[0, 0, 0] = y[0, 1, 1] = y[0, 2, 1] = 1
    masks = [torch.tensor([[True, True, True, False]]), torch.ones(1, 3, dtype=torch.bool)]
    support = Support(x, y, x[:, :3], x[:, 0], *masks, torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, dtype=torch.bool))
    values = model.head.logits(model.head.adapt(support), x, masks[0]).values[0, :3, :2]
    log_p = values.log_softmax(-1)
    expected = -(log_p[0, 0] + (log_p[1, 1] + log_p[2, 1]) / 2) / 2
    assert torch.allclose(support_loss(model.head, support), expected)
