"""What a panel answers, against loops over all pairs."""

import numpy as np
import pytest

from svdnet_jax.retrieval.distributions import FEWEST, distance_distributions
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.web.panel import LEVELS, allowed_for, evaluated_panel, levels, nearest, own_panel, rates_at


def embeddings(random, n, model="m"):
    pids = random.integers(-1, 9, n)
    centers = np.random.default_rng(9).normal(size=(10, 6))[pids]
    return Embeddings(
        (centers + random.normal(size=(n, 6))).astype(np.float32), pids, random.integers(1, 5, n), model=model
    )


@pytest.fixture(scope="module", params=["euclidean", "cosine"])
def panel(request):
    random = np.random.default_rng(0)
    return evaluated_panel(embeddings(random, 40), embeddings(random, 400), request.param, True)


def distance(panel, a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    if panel.index.metric == "cosine":
        return 1 - a @ b / np.sqrt((a @ a) * (b @ b))
    return np.sqrt(((a - b) ** 2).sum())


def pairs(panel):
    """Distances that the protocol compares, within identities and between them."""
    same, other = [], []
    for f, pid, camera in zip(panel.query.features, panel.query.pids, panel.query.cameras, strict=True):
        for g, pid_, camera_ in zip(panel.gallery.features, panel.gallery.pids, panel.gallery.cameras, strict=True):
            if min(pid, pid_) >= 0 and (pid, camera) != (pid_, camera_):
                (same if pid == pid_ else other).append(distance(panel, f, g))
    return np.array(same), np.array(other)


def test_rates_are_shares_of_all_pairs_up_to_a_step_of_the_grid(panel):
    same, other = pairs(panel)
    asked = np.concatenate([np.quantile(other, [0.01, 0.1, 0.5, 0.9]), [0, other.max() * 2]])
    rates, step = rates_at(panel.distributions, asked), np.diff(panel.distributions.edges[1:3])[0]
    for d, false, true, measured in zip(asked, *rates, strict=True):
        low, high = (np.array([(each <= d + more).sum() for each in (other, same)]) for more in (-step, 2 * step))
        assert (low[0] >= FEWEST) <= measured <= (high[0] >= FEWEST)
        assert max(low[0], FEWEST) / len(other) <= false <= max(high[0], FEWEST) / len(other)
        assert low[1] / len(same) <= true <= high[1] / len(same)
    assert rates.measured.tolist() == [True] * 4 + [False, True]
    assert rates.false[-1] == rates.true[-1] == 1
    assert rates.false[-2] == FEWEST / len(other)  # what is not measured is said to be below this


def test_levels_go_from_the_least_that_can_be_told_to_all(panel):
    found = levels(panel.distributions)
    assert len(found) == LEVELS
    assert found[-1]["false"] == found[-1]["true"] == 1
    shares = [level["false"] for level in found]
    assert shares == sorted(shares)
    assert shares[0] * panel.distributions.negatives.sum() == pytest.approx(FEWEST, rel=0.2)
    middle = found[30]
    rates = rates_at(panel.distributions, np.array([middle["distance"]]))
    assert (rates.false[0], rates.true[0]) == (middle["false"], middle["true"])


@pytest.mark.parametrize("k", [1, 7, 60, 1000])
@pytest.mark.parametrize("cameras", [None, [2], [1, 3], []])
@pytest.mark.parametrize("kind", ["query", "gallery", "image"])
@pytest.mark.parametrize("everything", [False, True])
def test_the_nearest_are_those_of_a_sort(panel, k, cameras, kind, everything):
    row, gallery = 11, panel.gallery
    asked = panel.query if kind == "query" else gallery
    expected = []
    for g in range(len(gallery.pids)):
        own = (gallery.pids[g], gallery.cameras[g]) == (asked.pids[row], asked.cameras[row])
        left_out = kind == "query" and not everything and (gallery.pids[g] < 0 or own)
        if not left_out and not (kind == "gallery" and g == row) and (cameras is None or gallery.cameras[g] in cameras):
            expected.append((distance(panel, asked.features[row], gallery.features[g]), g))
    expected = sorted(expected)[:k]
    allowed = allowed_for(panel, kind, row, None if cameras is None else np.array(cameras, np.int64), everything)
    one = Embeddings(asked.features[row : row + 1], [-1], [0], model="m")
    found = nearest(panel, one, allowed, k)
    assert found.rows.tolist() == [g for _, g in expected]
    np.testing.assert_allclose(found.distances, [d for d, _ in expected], rtol=1e-6, atol=1e-9)


def test_a_gallery_of_ones_own_has_the_rates_of_the_test_set_and_its_model(panel):
    gallery = embeddings(np.random.default_rng(4), 5)
    own = own_panel(gallery, panel)
    assert own.distributions is panel.distributions
    assert (own.report, len(own.query.pids), own.index.metric) == (None, 0, panel.index.metric)
    with pytest.raises(ValueError, match="of the model other, and the run is m"):
        own_panel(embeddings(np.random.default_rng(4), 5, "other"), panel)


def test_without_a_second_identity_nothing_is_said_of_sureness():
    ones = Embeddings(np.eye(4, dtype=np.float32), [1] * 4, [1, 2, 1, 2])
    found = evaluated_panel(ones, ones, "euclidean", True)
    assert found.distributions is None
    assert "no pair of two identities" in found.note
    with pytest.raises(ValueError, match="no pair of two identities"):
        distance_distributions(ones, ones)
