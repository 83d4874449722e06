"""Ranked lists: which queries are shown, and how right and wrong ones are marked."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image

from svdnet_jax.reporting.figures.ranked import RankedList, choose_queries, ranked_lists
from svdnet_jax.reporting.figures.style import save, short

RNG = np.random.default_rng(0)


def size_of(path):
    with Image.open(path) as image:
        return image.size


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
    names = [f"folder/{number:04}_c1s1_000151_00.jpg" for number in range(len(right))]
    return RankedList(pictures[0], "0007 c3", pictures[1:], np.array(right), captions, 0.25, "q.jpg", names)


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
    assert texts.count("q.jpg") == texts.count("0001_c1s1_000151_00.jpg") == 2
    assert texts.count("AP 25 %") == texts.count("0007 c3") == 2
    frames = [patch.get_edgecolor() for patch in axes.patches]
    assert [same_color(frame, "#009E73") for frame in frames[1:4]] == [True, False, True]
    assert same_color(frames[2], "#D55E00")
    assert len(axes.images) == len(frames) == 8
    np.testing.assert_array_equal(axes.images[0].get_array(), sections["Best"][0].query)
    np.testing.assert_array_equal(axes.images[-1].get_array(), sections["Worst"][0].gallery[-1])
    save(figure, tmp_path / "figures" / "ranked.png")  # warns, so fails, if a mark has no glyph
    assert size_of(tmp_path / "figures" / "ranked.png")[0] == 1350


def test_nobody_is_neither_right_nor_wrong():
    unknown = replace(ranked_list([True, False, True]), right=[None, True, None], average_precision=None)
    (axes,) = ranked_lists({"": [unknown]}, "A search").axes
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if "c1" in text and "_" not in text] == ["0000 c1", "✓ 0001 c1", "0002 c1"]
    assert not [text for text in texts if "AP" in text]
    assert [same_color(patch.get_edgecolor(), "#009E73") for patch in axes.patches] == [False, False, True, False]


def test_ranked_lists_of_nothing_are_refused():
    with pytest.raises(ValueError, match="no ranked list"):
        ranked_lists({"Best": []}, "nothing")


@pytest.mark.parametrize(
    ("person", "shown"),
    [
        ("zoé", "zoé"),
        ("fourteen chars", "fourteen chars"),
        ("fifteen letters", "fifteen lette…"),
        ("安娜", "0007"),  # not in the figures' font
        ("", "0007"),
    ],
)
def test_people_are_called_by_names_that_fit_and_can_be_drawn(person, shown):
    assert short({7: person}, 7, 4) == shown
    assert short({}, 7) == "7"
