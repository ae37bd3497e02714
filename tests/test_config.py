"""Settings: types, bounds, choices and names are checked where a config is made."""

from __future__ import annotations

import json

import pytest

import metatext as mt
from metatext.heads import HEADS
from metatext.settings import from_dict, to_dict


@pytest.mark.parametrize(
    ("given", "want"),
    [(5, 5), ("5", 5), ("2 16", (2, 16)), ("2,16", (2, 16)), ([2, 16], (2, 16)), ((3, 3), (3, 3)), ([4], 4), (6.0, 6)],
)
def test_ranges(given, want):
    assert mt.EpisodeConfig(n_way=given).n_way == want


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mt.EpisodeConfig(n_way=1), "n_way: must be at least 2, got 1"),
        (lambda: mt.EpisodeConfig(n_way=(9, 3)), "n_way: expected a range whose first number is not above its second"),
        (lambda: mt.EpisodeConfig(n_query=2.5), r"n_query: expected a whole number, got 2.5 \(float\)"),
        (lambda: mt.EpisodeConfig(k_shot=True), "k_shot: expected a whole number, got True"),
        (lambda: mt.EpisodeConfig(unbalanced=1.5), "unbalanced: must be between 0 and 1, got 1.5"),
        (
            lambda: mt.EpisodeConfig(name_dropout=0.4, name_noise=0.7),
            r"name_noise: must be at most 1 together with name_dropout, got 0.7 \+ 0.4",
        ),
        (
            lambda: mt.EncoderConfig(tuning="lorra"),
            r"^tuning: expected one of 'frozen', 'lora', 'full', got 'lorra' \(str\); did you mean 'lora'\?$",
        ),
        (lambda: mt.TrainConfig(meta_lr="fast"), "meta_lr: expected a number, got 'fast'"),
        (lambda: mt.TrainConfig(meta_lr=float("nan")), "meta_lr: expected a number, got nan"),
        (lambda: mt.TrainConfig(overwrite_output_dir=1), "overwrite_output_dir: expected true or false, got 1"),
        (lambda: mt.EncoderConfig(pooling="avg"), "pooling: expected one of"),
        (lambda: mt.EncoderConfig(name=3), r"encoder \(name of EncoderConfig\): expected text, got 3"),
    ],
)
def test_wrong_values_say_what_was_expected(make, message):
    with pytest.raises(mt.ConfigError, match=message):
        make()


def test_text_from_yaml_becomes_numbers():
    assert mt.TrainConfig(meta_lr="1e-4", meta_steps="20", early_stopping_patience="none").meta_lr == 1e-4
    assert mt.EncoderConfig("embedded") == mt.EncoderConfig(name="embedded")


def test_unknown_keys_name_the_nearest():
    with pytest.raises(
        mt.ConfigError, match=r"x\.yaml: unknown key 'meta_stps'; did you mean 'meta_steps'\?.*Known keys: output_dir"
    ):
        from_dict(mt.TrainConfig, {"meta_stps": 3}, "x.yaml")


@pytest.mark.parametrize(
    "made", [mt.EpisodeConfig(n_way=(2, 9)), mt.TrainConfig(report_to=["tensorboard"]), mt.HeadConfig("metanet")]
)
def test_round_trip_through_json(made):
    assert from_dict(type(made), json.loads(json.dumps(to_dict(made)))) == made


@pytest.mark.parametrize("cls", [mt.EncoderConfig, mt.HeadConfig, mt.EpisodeConfig, mt.TrainConfig])
def test_settings_are_values_with_help(cls):
    made = cls()
    with pytest.raises(AttributeError):
        made.name = "other"
    for item in cls.__dataclass_fields__.values():
        assert len(item.metadata["help"]) > 10, item.name


def test_every_head_can_be_named():
    for name in HEADS:
        assert mt.HeadConfig(name=name).name == name


def test_paths_and_numpy_numbers_are_taken(tmp_path):
    np = pytest.importorskip("numpy")
    assert mt.TrainConfig(output_dir=tmp_path).output_dir == str(tmp_path)
    assert mt.EpisodeConfig(n_way=np.int64(5), unbalanced=np.float32(0.5)) == mt.EpisodeConfig(n_way=5, unbalanced=0.5)
