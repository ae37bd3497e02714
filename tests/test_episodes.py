"""Episodes: what is drawn, from what, how often, and what is said when it cannot be."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from metatext import EpisodeConfig
from metatext.episodes import EpisodeBatch, draw_episodes, train_episodes
from metatext.pools import EpisodeError, bounds, eligible_classes, make_pool


def data(*sizes: int, seed: int = 0) -> np.ndarray:
    """Targets with so many rows per class, shuffled."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


def pool_of(targets: np.ndarray, ids: np.ndarray | None = None, n_classes: int | None = None, name: str = "toy"):
    ids = np.arange(len(targets)) if ids is None else ids
    return make_pool([name], [targets], [ids], [n_classes or int(targets.max()) + 1])


def draw(pool, n: int = 50, seed: int = 0, **config) -> EpisodeBatch:
    return train_episodes([pool], EpisodeConfig(**config), np.ones(len(pool.names)), n, seed=seed, step=0).batches[0]


def shots(batch: EpisodeBatch) -> np.ndarray:
    """(b, w) support rows of each way; -1 where the way is padded."""
    ways = np.arange(batch.classes.shape[1])
    count = (batch.support_y[..., None] == ways).sum(1)
    return np.where(batch.classes >= 0, count, -1)


def check(batch: EpisodeBatch, all_targets: list[np.ndarray], all_ids: list[np.ndarray], n_query: int) -> None:
    """Everything that holds for any batch: masks agree, rows bear the class that they stand for, nothing stands twice."""
    offsets = np.cumsum([0, *map(len, all_targets)])
    for i in range(len(batch)):
        task = batch.task[i]
        targets, ids, offset = all_targets[task], all_ids[task], offsets[task]
        classes = batch.classes[i][batch.classes[i] >= 0]
        assert len(set(classes)) == len(classes) >= 2
        assert (batch.classes[i, len(classes) :] == -1).all()  # padding stands behind
        assert not batch.named[i, len(classes) :].any()
        used = []
        for rows, y in ((batch.support[i], batch.support_y[i]), (batch.query[i], batch.query_y[i])):
            live = (rows >= 0) & (y >= 0)
            assert (y[rows < 0] == -1).all() and ((rows >= 0) | (rows == -1)).all()
            assert (targets[rows[live] - offset] == classes[y[live]]).all()
            used.append(rows[live] - offset)
        assert ((batch.support[i] >= 0) == (batch.support_y[i] >= 0)).all()
        np.testing.assert_array_equal(batch.outside[i], (batch.query[i] >= 0) & (batch.query_y[i] < 0))
        outside = batch.query[i][batch.outside[i]] - offset
        assert not set(targets[outside]) & set(classes)
        np.testing.assert_array_equal(np.bincount(batch.query_y[i][batch.query_y[i] >= 0]), n_query)
        both = np.concatenate(used)
        assert len(set(both)) == len(both), "a row stands twice"
        assert len(set(ids[both])) == len(both), "a text stands twice"
        assert not set(ids[outside]) & set(ids[both]), "a text inside and outside"


def same(one: EpisodeBatch, other: EpisodeBatch) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(EpisodeBatch))


RICH = dict(n_way=(2, 4), k_shot=(0, 5), n_query=2, n_outside=3, unbalanced=0.5, name_dropout=0.3, description_dropout=0.3)
RICH |= dict(name_noise=0.4, name_variation=0.6)


def test_pure_function_of_seed_and_step():
    pool, config, weights = named_pool(5, 9), EpisodeConfig(**RICH), np.ones(2)

    def at(seed: int, step: int) -> EpisodeBatch:
        return train_episodes([pool], config, weights, 8, seed=seed, step=step).batches[0]

    first = at(3, 7)
    np.random.seed(1)  # the global state has no part in it
    np.random.rand(5)
    at(3, 8)
    assert same(first, at(3, 7))
    assert not same(first, at(3, 8)) and not same(first, at(4, 7)) and not same(at(0, 1), at(1, 0))


def test_draw_takes_the_tasks_it_is_given():
    targets = [data(9, 9, 9), data(9, 9, seed=1)]
    pool = make_pool(["a", "b"], targets, [np.arange(27), np.arange(18)], [3, 2])
    tasks = np.array([1, 0, 0, 1])
    batch = draw_episodes(pool, EpisodeConfig(n_way=2, k_shot=1, n_query=2), tasks, np.random.default_rng(0))
    np.testing.assert_array_equal(batch.task, tasks)
    check(batch, targets, [np.arange(27), np.arange(18)], 2)


@pytest.mark.parametrize("cut", [(0, 3, 8), (0, 1, 2, 8), (0, 8)])
def test_slices_equal_the_batch(cut):
    batch = draw(named_pool(5, 9), n=8, **RICH)
    parts = [batch[i:j] for i, j in itertools.pairwise(cut)]
    assert [len(p) for p in parts] == list(np.diff(cut)) and len(batch) == 8
    for item in dataclasses.fields(EpisodeBatch):
        np.testing.assert_array_equal(np.concatenate([getattr(p, item.name) for p in parts]), getattr(batch, item.name))


def test_small_episodes_come_first_and_a_part_is_trimmed_to_its_largest():
    targets = data(*[20] * 60)
    batch = draw(pool_of(targets), n=32, n_way=(2, 60), k_shot=(0, 8), n_query=2, n_outside=3)
    rows = (batch.support >= 0).sum(1) + (batch.query >= 0).sum(1)
    assert (np.diff(rows) >= 0).all() and rows[0] < rows[-1]
    small = batch[:8].trimmed()
    ways = (batch.classes[:8] >= 0).sum(1).max()
    assert small.classes.shape == small.named.shape == small.name.shape == (8, ways) and ways < batch.classes.shape[1]
    assert small.support.shape == small.support_y.shape == (8, (batch.support[:8] >= 0).sum(1).max())
    assert small.query.shape == small.query_y.shape == small.outside.shape == (8, 2 * ways + 3)
    check(small, [targets], [np.arange(len(targets))], 2)
    for mine, whole in ((small.support, batch.support), (small.query, batch.query), (small.query_y, batch.query_y)):
        assert [row[row >= 0].tolist() for row in mine] == [row[row >= 0].tolist() for row in whole[:8]]
    assert same(batch.trimmed(), batch) and same(small.trimmed(), small)


@pytest.mark.parametrize("n_way, k_shot, n_query", [(2, 0, 1), (2, 1, 1), (3, 5, 2), (5, 1, 8), (5, 10, 10), (150, 1, 1)])
def test_exact_shape(n_way, k_shot, n_query):
    targets = data(*[20] * max(6, n_way))
    batch = draw(pool_of(targets), n=20, n_way=n_way, k_shot=k_shot, n_query=n_query)
    assert batch.classes.shape == (20, n_way)
    assert batch.support.shape == batch.support_y.shape == (20, n_way * k_shot)
    assert batch.query.shape == batch.query_y.shape == batch.outside.shape == (20, n_way * n_query)
    assert (batch.classes >= 0).all() and (batch.support >= 0).all() and (batch.query >= 0).all()
    assert (shots(batch) == k_shot).all() and not batch.outside.any() and batch.named.all() and batch.described.all()
    check(batch, [targets], [np.arange(len(targets))], n_query)


def test_ranges_are_covered_inclusively():
    targets = data(*[20] * 7)
    batch = draw(pool_of(targets), n=600, n_way=(2, 5), k_shot=(0, 4), n_query=1)
    ways = (batch.classes >= 0).sum(1)
    assert set(ways) == {2, 3, 4, 5}
    share = np.log([3 / 2, 4 / 3, 5 / 4, 6 / 5]) / np.log(6 / 2)
    assert chisquare(np.bincount(ways)[2:], 600 * share).pvalue > 1e-3
    k = shots(batch)
    assert all(len(set(row[row >= 0])) == 1 for row in k)  # balanced unless asked
    assert set(k.max(1)) == {0, 1, 2, 3, 4}
    share = np.log([2, 3 / 2, 4 / 3, 5 / 4, 6 / 5]) / np.log(6)  # of k + 1 shots, so that 0 is one of them
    assert chisquare(np.bincount(k.max(1)), 600 * share).pvalue > 1e-3
    check(batch, [targets], [np.arange(len(targets))], 1)


def test_few_ways_are_as_frequent_as_many():
    targets = [data(*[3] * 150), data(*[3] * 20)]
    pool = make_pool(["wide", "narrow"], targets, [np.arange(450), np.arange(60)], [150, 20])
    batch = draw(pool, n=4000, n_way=(2, 150), k_shot=(0, 1), n_query=1)
    ways = (batch.classes >= 0).sum(1)
    for task, top in ((0, 150), (1, 20)):
        drawn = ways[batch.task == task]
        assert drawn.min() == 2 and top - 5 <= drawn.max() <= top
        edges = np.array([2, 4, 8, 16, top + 1])
        counts = np.histogram(drawn, edges)[0]  # 2 to 3, 4 to 7, 8 to 15, the rest
        assert chisquare(counts, len(drawn) * np.diff(np.log(edges)) / np.log((top + 1) / 2)).pvalue > 1e-3


def test_a_range_above_the_classes_takes_what_there_is():
    batch = draw(pool_of(data(9, 9, 9)), n=200, n_way=(2, 16), k_shot=1, n_query=1)
    assert set((batch.classes >= 0).sum(1)) == {2, 3}


@pytest.mark.parametrize("unbalanced", [0.0, 1.0])
def test_more_ways_mean_fewer_shots_where_the_support_is_limited(unbalanced):
    targets = data(*[20] * 60)
    shape = dict(n_way=(2, 60), k_shot=(0, 16), n_query=2, unbalanced=unbalanced, max_support=100)
    batch = draw(pool_of(targets), n=600, **shape)
    check(batch, [targets], [np.arange(len(targets))], 2)
    ways, k = (batch.classes >= 0).sum(1), shots(batch)
    assert (k.max(1) <= np.minimum(16, 100 // ways)).all()
    assert batch.support.shape[1] <= 100
    assert k[ways <= 6].max() == 16 and k[ways > 50].max() == 1


def test_a_limited_support_never_goes_below_the_fewest_shots():
    targets = data(*[20] * 30)
    batch = draw(pool_of(targets), n=100, n_way=30, k_shot=(2, 8), n_query=2, max_support=40)
    assert (shots(batch) == 2).all()
    assert batch.support.shape == (100, 60)
    assert same(
        draw(pool_of(targets), n_way=4, k_shot=5, n_query=2, max_support=20), draw(pool_of(targets), n_way=4, k_shot=5, n_query=2)
    )


def test_duplicate_texts_and_texts_under_two_labels():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 120)  # every text about four times, often under several labels
    ids = rng.integers(0, 30, 120)
    pool = pool_of(targets, ids, 4)
    first = {i: int(targets[np.flatnonzero(ids == i)[0]]) for i in set(ids)}
    np.testing.assert_array_equal(pool.count[0], np.bincount(list(first.values()), minlength=4))
    assert len(set(ids[pool.rows])) == len(pool.rows) == len(first)
    batch = draw(pool, n=300, n_way=(2, 4), k_shot=(0, 4), n_query=2, n_outside=2, unbalanced=0.3)
    check(batch, [targets], [ids], 2)


def test_a_text_that_is_there_twice_counts_once():
    targets, ids = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 2, 3])
    with pytest.raises(EpisodeError, match="its smallest class has 1"):
        draw(pool_of(targets, ids), n_way=2, k_shot=1, n_query=1)


@pytest.mark.parametrize("k_low", [0, 1, 2])
def test_short_classes_give_fewer_shots_never_below_the_lowest(k_low):
    targets = data(k_low + 2, 5, 30)  # the first class has just the lowest plus the query
    batch = draw(pool_of(targets), n=200, n_way=3, k_shot=(k_low, 10), n_query=2)
    check(batch, [targets], [np.arange(len(targets))], 2)
    k = shots(batch)
    by_class = {c: k[batch.classes == c] for c in range(3)}
    top = by_class[2]  # long enough: what the episode asks for
    for c, size in enumerate((k_low + 2, 5)):
        np.testing.assert_array_equal(by_class[c], np.minimum(top, size - 2))
    assert k.min() >= k_low and set(top) == set(range(k_low, 11))


def test_fewer_ways():
    targets = [data(9, 9, 9), data(9, 9), data(*[9] * 8)]
    ids = [np.arange(len(t)) for t in targets]
    pool = make_pool(["three", "two", "eight"], targets, ids, [3, 2, 8])
    with pytest.raises(EpisodeError, match=r"'three'.* at least 5"):
        draw(pool, n_way=(5, 6), k_shot=1, n_query=1)
    batch = draw(pool, n=200, n_way=(5, 6), k_shot=1, n_query=1, fewer_ways=True)
    ways = (batch.classes >= 0).sum(1)
    assert [set(ways[batch.task == t]) for t in range(3)] == [{3}, {2}, {5, 6}]
    check(batch, targets, ids, 1)


def test_unbalanced():
    targets = data(*[20] * 5)
    batch = draw(pool_of(targets), n=400, n_way=4, k_shot=(1, 6), n_query=1, unbalanced=1.0)
    k = shots(batch)
    assert k.min() == 1 and k.max() == 6
    assert (np.ptp(k, axis=1) > 0).mean() > 0.5
    check(batch, [targets], [np.arange(100)], 1)
    part = shots(draw(pool_of(targets), n=1000, n_way=4, k_shot=(0, 16), n_query=1, unbalanced=0.3))
    share = (np.ptp(part, axis=1) > 0).mean()
    assert 0.18 < share < 0.34  # some unbalanced episodes draw the same number four times


def test_balanced_unless_asked():
    assert (np.ptp(shots(draw(pool_of(data(*[20] * 5)), n=200, n_way=4, k_shot=(0, 8), n_query=1)), axis=1) == 0).all()


@pytest.mark.parametrize("unbalanced", [0.0, 1.0])
def test_names_are_never_hidden_at_zero_shots(unbalanced):
    batch = draw(pool_of(data(*[20] * 5)), n=400, n_way=(2, 4), k_shot=(0, 3), n_query=1, unbalanced=unbalanced, name_dropout=1.0)
    live, k = batch.classes >= 0, shots(batch)
    some_zero = ((k == 0) & live).any(1)
    assert some_zero.any() and not some_zero.all()
    np.testing.assert_array_equal(batch.named, live & some_zero[:, None])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_dropout_shares(share):
    config = dict(n=2000, n_way=2, k_shot=1, n_query=1)
    pool = pool_of(data(9, 9, 9))
    hidden = ~draw(pool, name_dropout=share, **config).named
    assert (hidden.all(1) == hidden.any(1)).all()  # all names of an episode or none
    silent = ~draw(pool, description_dropout=share, **config).described
    for found in (hidden.all(1).mean(), silent.mean()):
        assert found == share if share in (0, 1) else abs(found - share) < 0.04


def named_pool(
    *n_classes: int, names: list[list[int]] | None = None, styles: int = 4, meaningless: int = 3, others: list[int] | None = None
):
    """Tasks with so many classes of 9 rows; every class has a name of its own, or those of ``names`` (-1: none)."""
    width = max(n_classes)
    label_ids = np.full((len(n_classes), width), -1)
    for i, n in enumerate(n_classes):
        label_ids[i, :n] = names[i] if names else np.arange(n) + 1000 * i
    targets = [data(*[9] * n, seed=i) for i, n in enumerate(n_classes)]
    ids = [np.arange(len(t)) for t in targets]
    others = None if others is None else np.array(others)
    task_names = [f"task {i}" for i in range(len(ids))]
    return make_pool(task_names, targets, ids, n_classes, label_ids, styles, meaningless, others=others)


def own_names(pool, batch: EpisodeBatch) -> np.ndarray:
    return np.where(batch.classes >= 0, batch.task[:, None] * pool.count.shape[1] + batch.classes, -1)


def distinct(row: np.ndarray) -> bool:
    return len(set(row.tolist())) == len(row)


def test_classes_bear_their_own_names_as_they_are_unless_asked():
    pool = named_pool(5, 3)
    batch = draw(pool, n_way=(2, 5), k_shot=(0, 2), n_query=1, name_dropout=0.5)
    np.testing.assert_array_equal(batch.name, own_names(pool, batch))
    assert not batch.style.any()


def test_the_rows_drawn_do_not_depend_on_the_names():
    pool = named_pool(5, 9)
    shape = dict(n_way=(2, 9), k_shot=(0, 4), n_query=2, n_outside=3, unbalanced=0.5, name_dropout=0.2, description_dropout=0.3)
    plain, varied = draw(pool, **shape), draw(pool, **shape, name_noise=0.5, name_variation=0.7)
    for field in ("task", "classes", "support", "support_y", "query", "query_y", "outside", "named", "described"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(varied, field))


def test_names_of_an_episode_are_written_in_one_of_the_other_ways():
    pool = named_pool(5, styles=4)
    batch = draw(pool, n=2000, n_way=3, k_shot=(0, 1), n_query=1, name_variation=0.6)
    assert batch.style.shape == (2000,)
    counts = np.bincount(batch.style, minlength=4)
    assert len(counts) == 4 and chisquare(counts, [800, 400, 400, 400]).pvalue > 1e-3
    np.testing.assert_array_equal(batch.name, own_names(pool, batch))
    assert (draw(pool, n=100, n_way=3, k_shot=1, n_query=1, name_variation=1.0).style > 0).all()


def test_a_share_of_episodes_shows_one_of_the_sets_of_other_names():
    pool = named_pool(5, 5, 5, styles=4, others=[0, 2, 3])
    shape = dict(n=6000, n_way=3, k_shot=(0, 1), n_query=1, name_variation=0.5)
    plain, batch = draw(pool, **shape), draw(pool, **shape, other_names=0.4)
    for field in ("task", "classes", "support", "query", "named", "name", "described"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(batch, field))
    assert (plain.style < 4).all()
    none, two, three = (batch.style[batch.task == task] for task in range(3))
    assert (none < 4).all() and two.max() == 5 and three.max() == 6
    for styles, shares in ((two, [0.6, 0.2, 0.2]), (three, [0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3])):
        counts = np.bincount(np.maximum(styles - 3, 0))
        assert chisquare(counts, np.array(shares) * len(styles)).pvalue > 1e-3
    kept = batch.style < 4
    np.testing.assert_array_equal(batch.style[kept], plain.style[kept])


def test_other_names_of_tasks_that_are_drawn_by_rows():
    rows = [np.zeros(40, np.int64)] * 2, [np.arange(40)] * 2
    pool = make_pool(["a", "b"], *rows, [3, 3], styles=2, by_class=False, others=np.array([0, 2]))
    batch = draw(pool, n=400, k_shot=4, n_query=4, other_names=1.0)
    assert (batch.style[batch.task == 0] == 0).all() and set(batch.style[batch.task == 1]) == {2, 3}


@pytest.mark.parametrize("unbalanced", [0.0, 1.0])
def test_names_say_something_at_zero_shots(unbalanced):
    pool = named_pool(5, 7)
    batch = draw(pool, n=400, n_way=(2, 4), k_shot=(0, 3), n_query=1, unbalanced=unbalanced, name_noise=1.0)
    live = batch.classes >= 0
    some_zero = ((shots(batch) == 0) & live).any(1)
    own = own_names(pool, batch)
    assert some_zero.any() and not some_zero.all()
    np.testing.assert_array_equal(batch.name[some_zero], own[some_zero])
    assert (batch.name != own)[live & ~some_zero[:, None]].all()
    assert batch.named[live].all() and (batch.name[~live] == -1).all()


def test_hidden_and_meaningless_names_keep_their_shares():
    pool = named_pool(6)
    batch = draw(pool, n=4000, n_way=3, k_shot=1, n_query=1, name_dropout=0.3, name_noise=0.5)
    hidden, foreign = ~batch.named.any(1), (batch.name != own_names(pool, batch)).all(1)
    assert not (hidden & foreign).any()
    assert abs(hidden.mean() - 0.3) < 0.04 and abs(foreign.mean() - 0.5) < 0.04


def test_meaningless_names_are_numbers_in_a_random_order():
    pool = named_pool(4, 2, meaningless=3)
    batch = draw(pool, n=4000, n_way=(2, 4), k_shot=1, n_query=1, name_noise=1.0)
    invented = (batch.name >= 2 * 4) | (batch.classes < 0)  # behind the 2 x 4 names of classes
    assert (invented.all(1) | ~invented[:, :2].any(1)).all()  # all names of an episode or none
    here = batch[np.flatnonzero(invented.all(1))]
    way, number = np.divmod(here.name - 8, 4)
    live = here.classes >= 0
    assert all(distinct(row[mask]) for row, mask in zip(number, live))
    assert all(distinct(row[mask]) is False for row, mask in zip(way, live))  # one way of naming in an episode
    assert chisquare(np.bincount(way[:, 0])).pvalue > 1e-3 and way[live].max() == 2
    assert (number[here.task == 1][:, :2] < 2).all()  # a task of two classes counts to two
    four = (here.task == 0) & (live.sum(1) == 4)
    orders = Counter(map(tuple, number[four].tolist()))
    assert len(orders) == 24 and chisquare(list(orders.values())).pvalue > 1e-3


def test_borrowed_names_belong_to_something_else():
    pool = named_pool(3, 12)
    batch = draw(pool, n=4000, n_way=3, k_shot=1, n_query=1, name_noise=1.0)
    assert (batch.name >= 0).all()
    borrowed = (batch.name < 2 * 12).all(1)
    assert 0.45 < borrowed.mean() < 0.55
    here, own = batch.name[borrowed], own_names(pool, batch)[borrowed]
    assert all(distinct(row) and not set(row.tolist()) & set(mine.tolist()) for row, mine in zip(here, own))
    lent = np.bincount(here[batch.task[borrowed] == 0].ravel(), minlength=24)
    assert not lent[:12].any() and chisquare(lent[12:]).pvalue > 1e-3  # all classes of the other task alike


def test_equal_names_count_as_one():
    """Two tasks with the classes 7 and 8 each: neither has another name to borrow."""
    pool = named_pool(2, 2, 2, names=[[7, 8], [8, 7], [-1, 7]])
    assert pool.lenders.size == 2
    batch = draw(pool, n=200, n_way=2, k_shot=1, n_query=1, name_noise=1.0)
    assert (batch.name >= 6).all()
    some = draw(named_pool(2, 4, names=[[7, 8], [8, 1, 2, 7]]), n=200, n_way=2, k_shot=1, n_query=1, name_noise=1.0)
    lent = some.name[(some.task == 0) & (some.name < 8).all(1)]
    assert set(map(frozenset, lent.tolist())) == {frozenset({5, 6})}


def test_tasks_without_any_name_are_numbered():
    batch = draw(named_pool(3, names=[[-1, -1, -1]]), n=50, n_way=3, k_shot=1, n_query=1, name_noise=1.0)
    assert (batch.name >= 3).all() and batch.named.all()


@pytest.mark.parametrize("config", [{"name_noise": 0.1}, {"name_variation": 0.1}, {"other_names": 0.1}])
def test_varied_names_must_be_encoded(config):
    with pytest.raises(EpisodeError, match=r"need the names to be encoded for them: encode_tasks\(\.\.\., episodes\)"):
        draw(pool_of(data(9, 9)), n_way=2, k_shot=1, n_query=1, **config)


@pytest.mark.parametrize("n_way", [2, (2, 4)])
def test_outside_rows(n_way):
    targets = data(9, 9, 9, 9)
    batch = draw(pool_of(targets), n=600, n_way=n_way, k_shot=1, n_query=2, n_outside=5)
    check(batch, [targets], [np.arange(36)], 2)
    ways = (batch.classes >= 0).sum(1)
    np.testing.assert_array_equal(batch.outside.sum(1), np.where(ways < 4, 5, 0))  # none where no class is left
    assert (batch.query_y[batch.outside] == -1).all() and (batch.query[batch.outside] >= 0).all()
    assert set(targets[batch.query[batch.outside]]) == {0, 1, 2, 3}
    two = ways == 2  # all rows of all the other classes alike
    counts = np.bincount(batch.query[two][batch.outside[two]], minlength=36)
    assert chisquare(counts).pvalue > 1e-3


def test_no_outside_rows_unless_asked():
    assert not draw(pool_of(data(9, 9, 9)), n_way=2, k_shot=1, n_query=1).outside.any()


@pytest.mark.parametrize(
    "sizes, config, parts",
    [
        (
            (9, 9, 3),
            dict(n_way=3, k_shot=4, n_query=2),
            ["2 of its 3 classes", "6 distinct texts", "smallest class has 3", "least 3"],
        ),
        ((9,), dict(n_way=2, k_shot=1, n_query=1), ["it has 1 class with rows", "a classifier needs two"]),
        ((9,), dict(n_way=(5, 9), k_shot=1, n_query=1, fewer_ways=True), ["it has 1 class with rows", "a classifier needs two"]),
        ((9, 9, 9), dict(n_way=10, k_shot=1, n_query=1), ["it has 3 classes with rows", "at least 10"]),
        ((9, 9, 9), dict(n_way=(4, 10), k_shot=1, n_query=1), ["it has 3 classes with rows", "at least 4"]),
        ((2, 2), dict(n_way=2, k_shot=(1, 9), n_query=8), ["0 of its 2 classes", "9 distinct texts", "k_shot 1", "n_query 8"]),
    ],
)
def test_errors_name_the_task_and_the_numbers(sizes, config, parts):
    pool = pool_of(data(*sizes), name="my task")
    for ask in (lambda: draw(pool, **config), lambda: eligible_classes(pool, EpisodeConfig(**config))):
        with pytest.raises(EpisodeError) as caught:
            ask()
        for part in ["'my task'", *parts]:
            assert part in str(caught.value)


def test_a_class_without_rows_takes_no_part():
    targets = np.repeat([0, 2], 9)
    pool = pool_of(targets, n_classes=4)
    np.testing.assert_array_equal(pool.count[0], [9, 0, 9, 0])
    batch = draw(pool, n=50, n_way=(2, 4), k_shot=(0, 2), n_query=1)
    assert set(batch.classes.ravel()) == {0, 2}
    with pytest.raises(EpisodeError, match="it has 2 classes with rows; n_way asks for at least 3"):
        draw(pool, n_way=3, k_shot=0, n_query=1)


def test_classes_are_chosen_alike_whatever_their_size():
    batch = draw(pool_of(data(4, 8, 16, 32, 64, 128)), n=3000, n_way=2, k_shot=1, n_query=1)
    assert chisquare(np.bincount(batch.classes[:, 0], minlength=6)).pvalue > 1e-3
    pairs = Counter(map(frozenset, batch.classes.tolist()))
    assert len(pairs) == 15 and chisquare(list(pairs.values())).pvalue > 1e-3


def test_rows_are_chosen_alike_in_every_place():
    targets = np.repeat([0, 1], 6)
    batch = draw(pool_of(targets), n=4000, n_way=2, k_shot=2, n_query=1)
    first, second = batch.support[:, 0], batch.support[:, 1]
    zero = batch.classes[:, 0] == 0
    ordered = Counter(zip(first[zero].tolist(), second[zero].tolist()))
    assert len(ordered) == 30 and chisquare(list(ordered.values())).pvalue > 1e-3  # ordered pairs out of 6 rows
    assert chisquare(np.bincount(batch.query.ravel(), minlength=12)).pvalue > 1e-3


def test_all_rows_of_a_class_can_be_used_up():
    targets = data(5, 5)
    batch = draw(pool_of(targets), n=20, n_way=2, k_shot=3, n_query=2)
    check(batch, [targets], [np.arange(10)], 2)
    assert all(set(s) | set(q) == set(range(10)) for s, q in zip(batch.support, batch.query))


def test_several_tasks_with_different_numbers_of_classes():
    sizes = [(12, 12), (12, 7, 30), (8,) * 9]
    targets = [data(*s, seed=i) for i, s in enumerate(sizes)]
    ids = [np.arange(len(t)) + 7 for t in targets]
    pool = make_pool(list("abc"), targets, ids, [2, 3, 9])
    assert pool.count.shape == (3, 9) and pool.count.sum() == sum(map(sum, sizes))
    batch = draw(pool, n=300, n_way=(2, 9), k_shot=(0, 3), n_query=2, n_outside=2, unbalanced=0.5)
    check(batch, targets, ids, 2)
    ways = (batch.classes >= 0).sum(1)
    assert [ways[batch.task == t].max() for t in range(3)] == [2, 3, 9]
    assert (batch.classes[batch.task == 0] < 2).all()
    assert batch.classes.shape[1] == 9 and (batch.classes[ways < 9, -1] == -1).all()
    assert (batch.support[ways == 2][:, 6:] == -1).all()  # at most 2 x 3 rows, the rest is padding


@pytest.mark.parametrize("weights", [[0.0, 1.0, 3.0], [2.0, 2.0, 2.0], [0.0, 0.0, 5.0]])
def test_tasks_are_drawn_by_weight(weights):
    targets = [data(6, 6)] * 3
    pool = make_pool(list("abc"), targets, [np.arange(12)] * 3, [2, 2, 2])
    config = EpisodeConfig(n_way=2, k_shot=1, n_query=1)
    batch = train_episodes([pool], config, np.array(weights), 2000, seed=0, step=0).batches[0]
    counts, share = np.bincount(batch.task, minlength=3), np.array(weights) / sum(weights)
    assert (counts[share == 0] == 0).all()
    if (share > 0).sum() > 1:
        assert chisquare(counts[share > 0], 2000 * share[share > 0]).pvalue > 1e-3


@pytest.mark.parametrize("value, expected", [(3, (3, 3)), ((1, 4), (1, 4)), ((0, 0), (0, 0))])
def test_bounds(value, expected):
    assert bounds(value) == expected
