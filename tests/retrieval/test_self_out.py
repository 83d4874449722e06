"""Leave-self-out: a query's own image is not in its ranking, and everything else is."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svdnet_jax.cli.evaluate import main
from svdnet_jax.retrieval import Embeddings, evaluate
from svdnet_jax.retrieval.self_out import leave_self_out


def images(pids, seed=0, names=True):
    features = np.random.default_rng(seed).normal(size=(len(pids), 4))
    called = [f"shop/{n}.jpg" for n in range(len(pids))] if names else []
    return Embeddings(features, pids, [1] * len(pids), np.array(called, np.str_))


def by_hand(every):
    """Mean of plain AP and rank-1, each image searched for among the others."""
    precision, first = [], []
    for q, feature in enumerate(every.features):
        others = [i for i in range(len(every.pids)) if i != q]
        others.sort(key=lambda i: np.linalg.norm(every.features[i] - feature))
        right = every.pids[others] == every.pids[q]
        if right.any():
            at = np.flatnonzero(right) + 1
            precision.append(np.mean(np.arange(1, len(at) + 1) / at))
            first.append(right[0])
    return np.mean(precision), np.mean(first), len(first)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=4, max_size=12), st.integers(0, 99))
def test_it_is_the_mean_over_each_image_searched_for_among_the_others(pids, seed):
    every = images([1, 1, *pids], seed)
    own = leave_self_out(every, every, "row")
    report = evaluate(own.query, own.gallery)
    ap, first, valid = by_hand(every)
    assert (report.mAP, report.rank(1)) == (pytest.approx(ap), pytest.approx(first))
    assert report.valid_queries == valid == own.found - own.alone


def test_by_name_the_order_does_not_matter_and_others_stay():
    every = images([1, 1, 2, 2, 3])
    some = [4, 2, 0]
    query = Embeddings(every.features[some], every.pids[some], [1] * 3, every.names[some])
    own = leave_self_out(query, every, "name")
    assert (own.found, own.alone) == (3, 1)
    assert own.query.cameras.tolist() == some
    assert str(own) == (
        "leave-self-out by name: 3 of 3 queries are in the gallery and left out of their own ranking; 1 of these have "
        "no other image of their identity and do not count"
    )
    stranger = Embeddings(every.features[:2], [1, 1], [1, 1], ["shop/0.jpg", "elsewhere.jpg"])
    own = leave_self_out(stranger, every, "name")
    assert own.found == 1
    assert own.query.cameras[1] not in own.gallery.cameras


@pytest.mark.parametrize(
    ("change", "by", "said"),
    [
        ({"names": np.empty(0, np.str_)}, "name", "the query has no names, so its images cannot be told by them"),
        ({"names": np.array(["a", "b", "c"])}, "name", "no query has the name of a gallery image"),
        (
            {"pids": np.array([1, 2, 2])},
            "name",
            r"another pid .* query row 1 \(shop/1.jpg\): pid 2, and 1",
        ),
        ({"pids": np.array([1, 1, 3])}, "row", "another pid as a query than in the gallery, the first is query row 2"),
    ],
)
def test_sets_that_are_not_one_are_refused(change, by, said):
    every = images([1, 1, 2])
    fields = {"features": every.features, "pids": every.pids, "cameras": every.cameras, "names": every.names}
    with pytest.raises(ValueError, match=said):
        leave_self_out(Embeddings(**fields | change), every, by)


def test_rows_and_names_must_fit():
    every = images([1, 1, 2])
    with pytest.raises(ValueError, match="the query has 3 rows and the gallery 2; expected one set"):
        leave_self_out(every, images([1, 1]), "row")
    twice = Embeddings(every.features, every.pids, every.cameras, ["a", "a", "b"])
    with pytest.raises(ValueError, match="1 names are those of several gallery images, the first is a"):
        leave_self_out(twice, twice, "name")


def test_the_command(tmp_path, capsys):
    every = images([1, 1, 2, 2, 3])
    every.save(tmp_path / "all.npz")
    files = ["--query", str(tmp_path / "all.npz"), "--gallery", str(tmp_path / "all.npz")]
    assert main([*files, "--leave-self-out", "name", "--json", "--no-cross-camera"]) == 0
    found = json.loads(capsys.readouterr().out)
    ap, first, valid = by_hand(every)
    assert (found["mAP"], found["rank1"], found["valid_queries"]) == (pytest.approx(ap), pytest.approx(first), valid)
    assert found["leave_self_out"] == {"by": "name", "queries_in_gallery": 5, "without_another": 1}
    assert main([*files, "--leave-self-out", "row", "--figures", str(tmp_path / "figures")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("leave-self-out by row: 5 of 5 queries are in the gallery")
    assert "very feature of the query" not in said.err
    assert not (tmp_path / "figures" / "camera_pairs.png").exists()
    for options, why in (
        ([*files, "--leave-self-out", "row", "--camera-pairs"], "--camera-pairs is about cameras"),
        (["--run", str(tmp_path), "--leave-self-out", "row"], "a data set says it itself"),
    ):
        assert main(options) == 2
        assert why in capsys.readouterr().err
