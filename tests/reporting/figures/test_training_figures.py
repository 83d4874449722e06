"""The figures hold the data: lines, spans, images and labels are compared with what went in."""

import numpy as np
import pytest
from fake_run import fake_run
from matplotlib.colors import same_color
from PIL import Image

from svdnet_jax.config.schema import RRI, Config, Phase
from svdnet_jax.reporting.figures.style import save
from svdnet_jax.reporting.figures.training import COLORS, SHADES, curves, gram, rounds, singular_values
from svdnet_jax.retrieval.intervals import ByIdentity
from svdnet_jax.training.schedule import build_schedule

RNG = np.random.default_rng(0)


def planned(rounds=4, base=None, **phases):
    """The plan that `fake_run` follows, or one with other phases."""
    return build_schedule(Config(base=base or Config().base, rri=RRI(rounds=rounds, **phases)))


def line(axes, label):
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return found


def size_of(path):
    with Image.open(path) as image:
        return image.size


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_curves_hold_loss_and_correlation_of_every_step():
    records = fake_run(rounds=3)
    above, below = curves(records, planned()).axes
    steps = [r for r in records if r["event"] == "step"]
    loss = line(above, "loss in training")
    assert list(loss.get_xdata()) == [r["step"] for r in steps]
    assert list(loss.get_ydata()) == [r["loss"] for r in steps]
    x, y = below.get_lines()[-1].get_data()
    at_decorrelation = y[x == 900]  # the last step, the end of the phase, before and after the SVD
    assert at_decorrelation[-1] == 1.0
    assert max(at_decorrelation[:-1]) < 0.1
    assert set(zip(x, y, strict=True)) >= {(r["step"], r["correlation"]) for r in steps}


def test_curves_show_the_loss_jump_of_a_decorrelation():
    records = fake_run(rounds=1)
    (change,) = [r["loss"] for r in records if r["event"] == "decorrelate"]
    x, y = line(curves(records, planned()).axes[0], "loss at borders, no dropout").get_data()
    assert list(y[x == 900])[-2:] == [change["before"], change["after"]]


def test_curves_shade_every_phase_and_number_the_rounds():
    records = fake_run(rounds=3)
    figure = curves(records, planned())
    for axes in figure.axes:
        spans = [(p.get_label(), p.get_x(), p.get_x() + p.get_width()) for p in axes.patches]
        expected = [("base", 0, 900)]
        for start in (900, 1080, 1260):
            expected += [("restraint", start, start + 90), ("relaxation", start + 90, start + 180)]
        assert spans == expected
        assert all(same_color(p.get_facecolor(), SHADES[p.get_label()]) for p in axes.patches)
    assert [text.get_text() for text in figure.axes[0].texts] == ["base", "round 1", "2", "3"]
    assert {"base", "restraint", "relaxation", "decorrelation"} < set(legend_texts(figure))
    assert len(legend_texts(figure)) == len(set(legend_texts(figure)))


def test_curves_of_many_rounds_number_them_without_the_word():
    texts = [text.get_text() for text in curves(fake_run(rounds=12), planned(12)).axes[0].texts]
    assert texts == ["base", *map(str, range(1, 13))]


def test_curves_mark_decorrelations_but_not_the_controls():
    marks = [mark for mark in curves(fake_run(rounds=3), planned()).axes[0].get_lines() if mark.get_linestyle() == ":"]
    assert [mark.get_xdata()[0] for mark in marks] == [900, 1080, 1260]
    control = curves(fake_run(rounds=3, method="none"), planned())
    assert "decorrelation" not in legend_texts(control)


def marks_of(figure):
    return list(line(figure.axes[0], "learning rate lowered").get_xdata())


def test_curves_mark_where_the_plan_lowers_the_learning_rate():
    """Not where a line of the log tells of it, which is up to 30 steps later and may be on the border of the phase."""
    rounds = [900 + 90 * number + 60 for number in range(6)]
    assert marks_of(curves(fake_run(rounds=3), planned())) == [540, 780, *rounds]
    odd = planned(base=Phase(steps=900, milestones=(7, 31, 899)), rounds=1)
    assert marks_of(curves(fake_run(rounds=1), odd)) == [7, 31, 899, 960, 1050]
    # The rate of each step, by the plan itself.
    rates = [odd[0].learning_rate_at(step) for step in range(900)]
    assert [step for step in range(1, 900) if rates[step] < rates[step - 1]] == list(odd[0].drops)
    constant = planned(base=Phase(steps=900), restraint=Phase(steps=90), relaxation=Phase(steps=90, milestones=(0, 90)))
    assert "learning rate lowered" not in legend_texts(curves(fake_run(), constant))


def test_curves_of_a_run_that_goes_on_mark_what_has_been():
    assert marks_of(curves(fake_run()[:22], planned())) == [540]
    figure = curves([r for r in fake_run(rounds=1) if r.get("step", 0) < 1020], planned(1))
    assert marks_of(figure) == [540, 780, 960]
    spans = [(p.get_label(), p.get_x(), p.get_x() + p.get_width()) for p in figure.axes[0].patches]
    assert spans == [("base", 0, 900), ("restraint", 900, 990)]


def test_curves_of_another_plan_are_refused():
    with pytest.raises(ValueError, match="step 930 in restraint of round 1, and the plan .*'base', 0.* not of one run"):
        curves(fake_run(), planned(base=Phase(steps=960)))


def test_curves_of_a_run_that_is_still_in_its_base(tmp_path):
    assert "loss at borders, no dropout" not in legend_texts(curves(fake_run()[:5], planned()))
    save(curves(fake_run()[:5], planned()), tmp_path / "curves.png")
    assert size_of(tmp_path / "curves.png") == (1350, 810)


def test_rounds_hold_both_embeddings_and_the_control():
    records, control = fake_run(rounds=2), fake_run(rounds=2, method="none")
    figure = rounds(records, control)
    for axes, measure in zip(figure.axes, ("rank1", "mAP"), strict=True):
        for log, kind, style in ((records, "RRI", "-"), (control, "control", "--")):
            for name in ("embedding", "pooled"):
                drawn = line(axes, f"{name}, {kind}")
                judged = [r for r in log if r["event"] == "phase" and r["phase"] != "restraint"]
                assert list(drawn.get_xdata()) == [0, 1, 2]
                assert list(drawn.get_ydata()) == [100 * r[name][measure] for r in judged]
                assert drawn.get_linestyle() == style
                assert drawn.get_color() == COLORS[name]
    assert len(legend_texts(figure)) == 4


def test_rounds_without_a_control_name_the_embeddings_only():
    assert legend_texts(rounds(fake_run(rounds=1))) == ["embedding", "pooled"]


def test_gram_shows_absolute_cosines_on_one_scale():
    weights = RNG.normal(size=(9, 4))
    weights[:, 3] = -2 * weights[:, 0]  # parallel columns: |cosine| 1 whatever their length and sign
    before, after = weights.T @ weights, np.diag([4.0, 1.0, 9.0, 0.0])
    figure = gram({"after Step 0": before, "after SVD": after})
    left, right = (axes.images[0] for axes in figure.axes[:2])
    unit = weights / np.linalg.norm(weights, axis=0)
    # A few roundings of float64 lie between the two ways to the cosine.
    np.testing.assert_allclose(left.get_array(), np.abs(unit.T @ unit), atol=1e-14)
    np.testing.assert_array_equal(right.get_array(), np.diag([1.0, 1.0, 1.0, 0.0]))
    assert left.get_clim() == right.get_clim() == (0, 1)
    expected = np.trace(before) / np.abs(before).sum()
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == [f"after Step 0: S(W) = {expected:.3f}", "after SVD: S(W) = 1.000"]


def test_singular_values_are_drawn_on_a_log_scale():
    spectra = {"base": np.array([9.0, 3.0, 0.1]), "round 1": np.array([5.0, 4.0, 1.0])}
    (axes,) = singular_values(spectra).axes
    assert axes.get_yscale() == "log"
    for name, values in spectra.items():
        assert list(line(axes, name).get_xdata()) == [1, 2, 3]
        assert list(line(axes, name).get_ydata()) == list(values)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["base", "round 1"]


def test_bands_are_the_intervals_over_people_and_the_axis_says_where_it_starts():
    rng, people = np.random.default_rng(0), np.arange(30)
    sums = {}
    for number in range(3):
        each = ByIdentity(people, np.full(30, 2), {m: rng.random(30) for m in ("rank1", "mAP", "mAP_market")})
        sums[number] = {"embedding": each, "pooled": each}
    axes = rounds(fake_run(rounds=2), sums=sums).axes[1]
    band, _ = axes.collections
    drawn = band.get_paths()[0].vertices
    for number in range(3):
        interval = sums[number]["embedding"].interval("mAP")
        ends = drawn[drawn[:, 0] == number, 1]
        assert (ends.min(), ends.max()) == pytest.approx((100 * interval.low, 100 * interval.high))
    assert axes.get_ylabel() == f"per cent; the axis starts at {axes.get_ylim()[0]:.0f}"
