"""The figures hold the data: lines, spans, images and labels are compared with what went in."""

import numpy as np
import pytest
from fake_run import fake_run
from matplotlib.colors import same_color
from PIL import Image

from svdnet_jax.config.schema import RRI, Config, Phase
from svdnet_jax.reporting.figures.ranked import RankedList, choose_queries, ranked_lists
from svdnet_jax.reporting.figures.training import COLORS, SHADES, curves, gram, rounds, save, singular_values
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


def test_queries_are_chosen_by_average_precision():
    values = np.array([0.5, 1.0, np.nan, 0.0, 0.7, 0.3, 1.0, 0.1, 0.6])
    chosen = {name: list(indices) for name, indices in choose_queries(values, count=2).items()}
    # In order: 1, 6 (ties keep their order), 4, 8, 0, 5, 7, 3.
    assert chosen == {"best": [1, 6], "median": [8, 0], "worst": [7, 3]}
    assert list(choose_queries(np.array([0.2, np.nan, 0.9]))["all"]) == [2, 0]
    tied = choose_queries(np.tile([1.0, 0.5, 0.0], 40), count=2)  # long enough for a real sort
    assert {name: list(indices) for name, indices in tied.items()} == {
        "best": [0, 3],
        "median": [58, 61],
        "worst": [116, 119],
    }


@pytest.mark.parametrize(("queries", "each"), [(3, 1), (5, 1), (6, 2)])
def test_no_query_is_chosen_twice(queries, each):
    chosen = choose_queries(np.linspace(0, 1, queries), count=2)
    positions = np.concatenate(list(chosen.values()))
    assert len(positions) == len(set(positions)) == 3 * each


def ranked_list(right):
    pictures = RNG.integers(0, 256, (1 + len(right), 64, 32, 3), dtype=np.uint8)
    captions = [f"{number:04} c1" for number in range(len(right))]
    return RankedList(pictures[0], "0007 c3", pictures[1:], np.array(right), captions, 0.25)


def test_ranked_lists_frame_right_and_wrong_with_color_and_mark(tmp_path):
    sections = {"Best": [ranked_list([True, False, True])], "Worst": [ranked_list([False] * 3)]}
    figure = ranked_lists(sections, "Queries with the best and the worst AP")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert axes.get_title(loc="left") == "Queries with the best and the worst AP"
    assert [text for text in texts if text in sections] == ["Best", "Worst"]
    assert [t for t in texts if t[0] in "✓✗"] == [
        *("✓ 0000 c1", "✗ 0001 c1", "✓ 0002 c1"),
        *("✗ 0000 c1", "✗ 0001 c1", "✗ 0002 c1"),
    ]
    assert texts.count("AP 25 %") == texts.count("0007 c3") == 2
    frames = [patch.get_edgecolor() for patch in axes.patches]
    assert [same_color(frame, "#009E73") for frame in frames[1:4]] == [True, False, True]
    assert same_color(frames[2], "#D55E00")
    assert len(axes.images) == len(frames) == 8
    np.testing.assert_array_equal(axes.images[0].get_array(), sections["Best"][0].query)
    np.testing.assert_array_equal(axes.images[-1].get_array(), sections["Worst"][0].gallery[-1])
    save(figure, tmp_path / "figures" / "ranked.png")  # warns, so fails, if a mark has no glyph
    assert size_of(tmp_path / "figures" / "ranked.png")[0] == 1350


def test_ranked_lists_of_nothing_are_refused():
    with pytest.raises(ValueError, match="no ranked list"):
        ranked_lists({"Best": []}, "nothing")
