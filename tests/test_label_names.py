"""Ways of writing label names: what they do to words, and that no two names become one."""

from __future__ import annotations

import itertools

import pytest
from scripts.train_head import letter_tasks

import metatext as mt
from metatext.label_names import MEANINGLESS, STYLES, letters, pascal


def test_a_name_in_every_style():
    assert [write("refund not Showing up") for write in STYLES] == [
        "refund not Showing up",
        "refund_not_Showing_up",
        "REFUND_NOT_SHOWING_UP",
        "refund-not-showing-up",
        "refund.not.showing.up",
        "RefundNotShowingUp",
        "REFUND NOT SHOWING UP",
        "about: refund not Showing up",
        "category: refund not Showing up",
        "This text is about refund not Showing up.",
    ]


def test_capitals_inside_a_word_stay():
    assert pascal("  iPhone and NASA news") == "IPhoneAndNASANews"


@pytest.mark.parametrize("name", ["A", "déjà vu", "政治", "C++ / C#", "U.S. politics"])
@pytest.mark.parametrize("style", range(len(STYLES)))
def test_any_name_can_be_written(name, style):
    assert STYLES[style](name).strip()


def test_letters_count_like_the_columns_of_a_spreadsheet():
    assert [letters(n) for n in (0, 1, 25, 26, 27, 51, 52, 701, 702)] == ["a", "b", "z", "aa", "ab", "az", "ba", "zz", "aaa"]


def test_meaningless_names_of_the_first_classes():
    assert [invent(0) for invent in MEANINGLESS] == ["0", "class 0", "LABEL_0", "C00", "group 1", "label_a", "class A", "A"]
    assert [invent(27) for invent in MEANINGLESS][3:] == ["C27", "group 28", "label_ab", "class AB", "AB"]


@pytest.mark.parametrize("style", range(len(STYLES)))
def test_numbers_stay_apart_in_every_style(style):
    for invent in MEANINGLESS:
        assert len({STYLES[style](invent(n)).casefold() for n in range(1000)}) == 1000


def test_styles_differ():
    texts = [write("open an account") for write in STYLES]
    assert all(a != b for a, b in itertools.combinations(texts, 2))


def test_training_encodes_the_names_that_its_episodes_show(tiny, tmp_path):
    store = mt.FeatureStore(tiny, tmp_path / "features", progress=False)
    shape = mt.EpisodeConfig(n_way=2, k_shot=(0, 2), n_query=2, n_outside=1, name_noise=0.5, name_variation=0.5)
    config = mt.TrainConfig(output_dir=tmp_path / "run", meta_steps=2, meta_batch_size=4)
    mt.meta_train(mt.MetaModel.from_encoder(tiny), letter_tasks(2), episodes=shape, config=config, store=store)
    done = store.encoded
    store.add([STYLES[3]("abc"), MEANINGLESS[1](1), STYLES[7](MEANINGLESS[2](0))])
    assert store.encoded == done + 1  # "abc" is no name of these tasks
