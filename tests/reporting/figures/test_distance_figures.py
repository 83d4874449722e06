"""The figure of distances holds the data: densities, thresholds and curves are compared with what went in."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image

from svdnet_jax.reporting.figures.distances import distributions, key_numbers, marked_rate
from svdnet_jax.reporting.figures.style import save
from svdnet_jax.retrieval.distributions import Distributions

STEP = 2.0**-10


def counted(positives, negatives, scale=1.0):
    """Distributions of these distances, which are below 4."""
    edges = np.arange(-1, 4097) * STEP
    counts = (np.bincount(np.ceil(np.array(d) / STEP).astype(int) + 1, minlength=4098) for d in (positives, negatives))
    return Distributions("euclidean", True, edges * scale, *counts)


def bells(seed, middle, scale=1.0, negatives=20_000):
    random = np.random.default_rng(seed)
    return counted(random.normal(middle, 0.1, 500).clip(0, 4), random.normal(2, 0.2, negatives).clip(0, 4), scale)


@pytest.fixture(scope="module")
def found():
    return {"after Step 0": bells(0, 1.6), "after the last round": bells(1, 1.2)}


def outlines(axes):
    """Label -> heights and bounds of the densities."""
    return {patch.get_label(): patch.get_data()[:2] for patch in axes.patches if patch.get_label()}


def mark(axes):
    """Where the dashed line is."""
    (x,) = {line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"}
    return x


def test_there_is_a_panel_for_each_moment_and_one_for_all_curves(found, tmp_path):
    figure = distributions(found)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [*found, "ROC, by threshold"]
    assert [axes.get_xlabel() for axes in figure.axes[:2]] == ["distance / mean distance between identities"] * 2
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert texts == ["pairs of one identity", "pairs of two", "threshold", *found]
    first, second, _ = figure.axes
    assert (first.get_xlim(), first.get_ylim()) == (second.get_xlim(), second.get_ylim())
    save(figure, tmp_path / "distances.png")
    with Image.open(tmp_path / "distances.png") as image:
        assert image.size == (1665, 600)


def test_densities_are_those_of_the_normalized_distances(found):
    for axes, one in zip(distributions(found).axes, found.values(), strict=False):
        unit = np.average(one.edges, weights=one.negatives)
        for name, counts in (("pairs of one identity", one.positives), ("pairs of two", one.negatives)):
            heights, bounds = outlines(axes)[name]
            share = [counts[(one.edges / unit > a) & (one.edges / unit <= b)].sum() for a, b in pairwise(bounds)]
            # The mean is that of the middles of the grid's steps: pairs at the border of a bar may be in the next one.
            assert np.abs(heights * np.diff(bounds) - share / counts.sum()).max() < 0.01
            assert 0.99 < (heights * np.diff(bounds)).sum() <= 1 + 1e-9
            assert np.average((bounds[1:] + bounds[:-1]) / 2, weights=heights) == pytest.approx(
                np.average(one.edges, weights=counts) / unit, abs=0.01
            )
        colors = {patch.get_label(): patch.get_edgecolor() for patch in axes.patches}
        assert same_color(colors["pairs of one identity"], "#009E73")


def test_models_of_different_scale_give_one_picture():
    small, large = distributions({"": bells(0, 1.6)}), distributions({"": bells(0, 1.6, scale=128.0)})
    for name, (heights, bounds) in outlines(small.axes[0]).items():
        np.testing.assert_allclose(outlines(large.axes[0])[name][0], heights)
        np.testing.assert_allclose(outlines(large.axes[0])[name][1], bounds)
    assert mark(small.axes[0]) == pytest.approx(mark(large.axes[0]))


def test_the_threshold_is_marked_and_named(found):
    figure = distributions(found)
    for axes, one in zip(figure.axes, found.values(), strict=False):
        threshold = one.threshold(0.001)
        assert mark(axes) == threshold.distance / one.of_negatives().mean
        (text,) = axes.texts
        false, true = 100 * threshold.false_match_rate, 100 * threshold.true_match_rate
        assert 0.09 < false <= 0.1
        at = mark(axes)
        where = f"≤ {at:.2f} (distance {threshold.distance:.4g}):"
        assert text.get_text() == f"{where}\n{false:.2g} % false matches\n{true:.1f} % true matches"
    assert mark(figure.axes[-1]) == 0.1


def test_curves_are_the_roc_in_per_cent(found):
    axes = distributions(found).axes[-1]
    assert axes.get_xscale() == "log"
    assert axes.get_xlim() == (0.05, 100)  # ten of 20 000
    lines = {line.get_label(): line for line in axes.get_lines()}
    for title, one in found.items():
        x, y = lines[title].get_data()
        false, true = one.roc()
        np.testing.assert_allclose(x[1:], 100 * np.unique(false)[1:])
        assert x[0] < 0.05
        best = {rate: max(true[false == rate]) for rate in np.unique(false)}
        np.testing.assert_allclose(y, 100 * np.array(list(best.values())))


def test_key_numbers_go_from_one_moment_to_the_next(found):
    before, after = found.values()
    true = [f"{100 * one.threshold(0.001).true_match_rate:.1f} %" for one in (before, after)]
    assert float(true[1].split()[0]) > float(true[0].split()[0]) + 20
    assert key_numbers(found) == (
        f"d' {before.separation:.2f} → {after.separation:.2f}; "
        f"true-match rate at a false-match rate of 0.1 %: {true[0]} → {true[1]}; "
        f"equal error rate {100 * before.eer:.1f} % → {100 * after.eer:.1f} %"
    )
    assert "→" not in key_numbers({"after Step 0": before})


@pytest.mark.parametrize(("negatives", "rate"), [(20_000, 0.001), (9_999, 0.01), (1_000, 0.01), (999, None)])
def test_the_rate_is_one_that_all_of_the_data_can_tell(negatives, rate):
    found = {"many": bells(0, 1.6), "few": bells(0, 1.6, negatives=negatives)}
    assert marked_rate(found) == rate
    figure = distributions(found)
    assert len(figure.axes[1].texts) == (rate is not None)
    assert ("true-match rate" in key_numbers(found)) == (rate is not None)


def test_a_handful_of_pairs_can_be_drawn(tmp_path):
    for positives, negatives in (([1.0], [2.0]), ([0.0], [0.0]), ([1, 1], [1, 1, 3])):
        figure = distributions({"few": counted(positives, negatives)})
        save(figure, tmp_path / "few.png")
        heights, bounds = outlines(figure.axes[0])["pairs of one identity"]
        assert (heights * np.diff(bounds)).sum() == pytest.approx(1)


def test_nothing_is_refused():
    with pytest.raises(ValueError, match="no distributions"):
        distributions({})
