"""Orders of samples: laws of every epoch, any step on its own, and numbers that must never change."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from svdnet_jax.data.sampling import pk_batches, shuffle_batches
from svdnet_jax.errors import ConfigError, DataError

SEEDS = st.integers(0, 2**32 - 1)


def market_like():
    """Identities of as many images as Market-1501's: 751 of 2 to 72, 17.2 in the mean."""
    counts = np.clip(np.random.default_rng(0).gamma(2.4, 7.2, 751).round().astype(int), 2, 72)
    return np.random.default_rng(1).permutation(np.repeat(np.arange(751), counts))


@given(st.integers(1, 30), st.integers(1, 70), SEEDS)
@settings(deadline=None)
def test_every_image_comes_once_an_epoch(samples, batch_size, seed):
    order = shuffle_batches(samples, batch_size, seed)
    drawn = [order(step) for step in range(-(-4 * samples // batch_size))]
    assert {len(positions) for positions in drawn} == {batch_size}
    epochs = np.concatenate(drawn)[: 4 * samples].reshape(4, samples)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(samples), (4, 1)))


@given(st.integers(1, 30), st.integers(1, 70), SEEDS)
@settings(deadline=None)
def test_an_epoch_is_sorted_by_bits_of_philox(samples, batch_size, seed):
    expected = []
    while len(expected) < 3 * batch_size:
        epoch = len(expected) // samples
        bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(samples)
        expected += sorted(range(samples), key=lambda position: bits[position])
    order = shuffle_batches(samples, batch_size, seed)
    assert np.concatenate([order(0), order(1), order(2)]).tolist() == expected[: 3 * batch_size]


def test_epochs_and_seeds_differ():
    orders = [shuffle_batches(50, 50, seed)(epoch).tolist() for seed in (0, 1, 2**32 - 1) for epoch in (0, 1, 2)]
    assert len(np.unique(orders, axis=0)) == 9


@pytest.mark.parametrize(
    "make",
    [
        lambda: shuffle_batches(23, 10, 3),
        lambda: shuffle_batches(4, 10, 3),
        lambda: pk_batches(np.arange(40) % 7, 8, 2, 3),
    ],
    ids=["shuffled", "more than an epoch a batch", "by identity"],
)
def test_any_step_on_its_own_is_that_of_the_sequence(make):
    order = make()
    sequence = [order(step) for step in range(60)]
    for step in np.random.default_rng(0).permutation(60):
        np.testing.assert_array_equal(order(int(step)), sequence[step])
    for step in (59, 17, 0):
        np.testing.assert_array_equal(make()(step), sequence[step])


@pytest.mark.parametrize("order", [shuffle_batches(9, 6, 0), pk_batches(np.arange(9) % 3, 6, 2, 0)])
def test_positions_belong_to_the_caller(order):
    before = order(0).copy()
    order(0)[:] = 0
    np.testing.assert_array_equal(order(0), before)


def test_orders_of_old_runs_stay_what_they_were():
    """A run must resume under another version of NumPy, and of this package."""
    assert shuffle_batches(10, 4, 7)(0).tolist() == [8, 4, 1, 6]
    assert shuffle_batches(10, 4, 7)(2).tolist() == [9, 0, 3, 9]
    assert pk_batches(np.arange(20) % 6, 6, 2, 7)(0).tolist() == [6, 12, 1, 19, 16, 4]
    assert pk_batches(np.arange(20) % 6, 6, 2, 7)(5).tolist() == [0, 18, 7, 19, 15, 3]


@st.composite
def identities(draw):
    """Images of each identity, images of each in a batch, and identities of a batch."""
    counts = draw(st.lists(st.integers(1, 20), min_size=1, max_size=12))
    return counts, draw(st.integers(1, 5)), draw(st.integers(1, len(counts)))


def most_batches(groups, size):
    """By trial: how many batches can be filled with no identity twice in one."""
    return max(s for s in range(sum(groups) + 1) if sum(min(group, s) for group in groups) >= s * size)


@given(identities(), SEEDS)
@settings(deadline=None, max_examples=150)
def test_laws_of_an_epoch_by_identity(case, seed):
    counts, each, size = case
    # Any numbers will do for identities, in any order.
    classes = np.random.default_rng(seed).permutation(np.repeat(10 * np.arange(len(counts)) - 5, counts))
    order = pk_batches(classes, size * each, each, seed)
    groups = [max(count // each, 1) for count in counts]
    steps = most_batches(groups, size)
    assert steps >= 1
    for epoch in range(3):
        drawn = np.stack([order(epoch * steps + step) for step in range(steps)]).reshape(steps, size, each)
        people = classes[drawn]
        assert (people == people[:, :, :1]).all(), "a group is of one identity"
        assert all(len(set(batch)) == size for batch in people[:, :, 0]), "no identity twice in a batch"
        times = np.bincount(drawn.ravel(), minlength=len(classes))
        for identity, count in enumerate(counts):
            mine = times[classes == 10 * identity - 5]
            taken = mine.sum() // each
            assert taken <= min(groups[identity], steps)
            assert mine.max() - mine.min() <= 1, "an image comes twice only where all others of the group came"
            assert mine.max() <= max(1, -(-each // count))
        missing = sum(min(group, steps) for group in groups) - steps * size
        assert 0 <= missing < size, "what is left out does not fill a batch"


def test_batches_of_market_1501():
    classes = market_like()
    order = pk_batches(classes, 64, 4, 0)
    groups = np.maximum(np.bincount(classes) // 4, 1)
    steps = int(groups.sum()) // 16
    batches = np.stack([classes[order(step)].reshape(16, 4)[:, 0] for step in range(steps)])
    assert all(len(set(batch)) == 16 for batch in batches)
    left_out = groups - np.bincount(batches.ravel())
    assert left_out.min() == 0
    assert left_out.sum() == groups.sum() % 16


def test_an_identity_may_stand_anywhere_in_a_batch():
    """Not sorted: where a batch is divided among devices, each should see everybody."""
    classes = market_like()
    order = pk_batches(classes, 64, 4, 0)
    batches = np.stack([classes[order(step)].reshape(16, 4)[:, 0] for step in range(180)])
    # Numbers 0 .. 750 have a standard deviation of 217, a mean of 180 of them one of 16; five of these.
    assert np.ptp(batches[:, [0, -1]].mean(axis=0)) < 5 * 16 * np.sqrt(2)


def test_groups_of_an_identity_are_spread_over_the_epoch():
    classes = market_like()
    order = pk_batches(classes, 64, 4, 0)
    groups = np.maximum(np.bincount(classes) // 4, 1)
    steps = int(groups.sum()) // 16
    batches = np.stack([classes[order(step)].reshape(16, 4)[:, 0] for step in range(steps)])
    for identity in np.flatnonzero(np.bincount(batches.ravel()) == groups):
        n = groups[identity]
        places = np.flatnonzero((batches == identity).any(axis=1)) / steps
        # Due in [j/n, (j+1)/n]; as many others may be due early or late, of all 3000 groups two in a hundred.
        assert np.abs(places - (np.arange(n) + 0.5) / n).max() <= 0.5 / n + 0.02


def test_who_meets_whom_is_another_matter_each_time():
    """Of the pairs of identities that meet in an epoch few meet again, though some come 18 times."""
    classes = market_like()
    order = pk_batches(classes, 64, 4, 0)
    met = set()
    for step in range(180):
        batch = np.unique(classes[order(step)])
        met |= {(a, b) for a in batch for b in batch if a < b}
    # Drawn independently (each identity as often as it comes), 0.94 of the meetings would be of new pairs.
    assert len(met) > 0.92 * 180 * 120


def test_what_was_left_out_comes_another_time():
    classes = np.repeat(np.arange(3), (7, 5, 9))
    order = pk_batches(classes, 8, 4, 0)
    assert len(np.unique([order(step) for step in range(60)])) == len(classes)


@pytest.mark.parametrize(
    ("counts", "size", "steps"),
    [((100, 4, 4), 2, 2), ((100, 100, 1), 2, 25), ((8, 8, 8, 8), 4, 2), ((1, 1, 1), 2, 1)],
    ids=["one rules", "two rule", "all in every batch", "hardly anything"],
)
def test_few_identities(counts, size, steps):
    order = pk_batches(np.repeat(np.arange(len(counts)), counts), 4 * size, 4, 0)
    epochs = [[np.unique(np.repeat(np.arange(len(counts)), counts)[order(s)]) for s in range(steps)] for _ in "ab"]
    assert all(len(batch) == size for epoch in epochs for batch in epoch)


@pytest.mark.parametrize("each", [0, -1, 3, 16])
def test_groups_that_do_not_fill_a_batch_are_refused(each):
    with pytest.raises(ConfigError, match=f"`data.num_instances` {each}: must be a positive divisor of `data.batch_si"):
        pk_batches(np.arange(10), 8, each, 0)


def test_more_identities_than_there_are_are_refused():
    with pytest.raises(DataError, match=r"puts 4 identities in a batch, and there are 3 to train on; lower"):
        pk_batches(np.arange(30) % 3, 16, 4, 0)
