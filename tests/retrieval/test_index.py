"""Saved indexes: what each kind finds, its file, and what is refused."""

import dataclasses
import importlib.util
import sys

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from reference_metrics import distances

from svdnet_jax.retrieval import faiss_index
from svdnet_jax.retrieval import index as module
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.index import build_index, load_index, save_index, search

MODEL = "3f2a09c1d4e5b677-pooled"
needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss-cpu is not installed")
OURS = ["exact", "approx"]
FAISS = [pytest.param(kind, marks=needs_faiss) for kind in ("flat", "ivf", "hnsw", "pq")]
METRICS = ["euclidean", "cosine"]


def images(features, model=MODEL):
    n = len(features)
    return Embeddings(features, np.arange(n) % 5 - 1, np.arange(n) % 3, [f"{i:04d}.jpg" for i in range(n)], model)


def clustered(gallery=3000, queries=60, d=32, people=230):
    """People as points of a space of 12 dimensions, seen through noise, as trained features are."""
    rng = np.random.default_rng(0)
    centers, basis = rng.normal(size=(people, 12)), rng.normal(size=(12, d))

    def seen(n):
        inner = centers[rng.integers(0, people, n)] + 0.5 * rng.normal(size=(n, 12))
        return images((inner @ basis + 0.1 * rng.normal(size=(n, d))).astype(np.float32))

    return seen(gallery), seen(queries)


def by_sorting(query, gallery, k, metric):
    """Rows and distances of the nearest, written from the definition."""
    matrix = distances(query.features, gallery.features, metric)
    rows = [sorted(range(matrix.shape[1]), key=lambda j: (line[j], j))[:k] for line in matrix]
    return np.array(rows), np.array([[line[j] for j in row] for line, row in zip(matrix, rows, strict=True)])


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(np.float32, (5, 3), elements=st.integers(-4, 4)),
    hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(-4, 4)),
    st.integers(1, 40),
)
def test_exact_equals_a_sort_with_ties(query, gallery, k):
    query, gallery = images(query), images(gallery)
    k = min(k, len(gallery.pids))
    found = search(build_index(gallery), query, k)
    rows, expected = by_sorting(query, gallery, k, "euclidean")
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, expected, rtol=1e-7)
    assert (found.rows.dtype, found.distances.dtype) == (np.int64, np.float64)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [*OURS, FAISS[0]])
def test_exact_kinds_equal_a_sort(kind, metric):
    rng = np.random.default_rng(1)
    # 25 queries: from 20 on FAISS multiplies matrices, below it subtracts.
    query, gallery = (images(rng.normal(size=(n, 8)) * rng.uniform(0.5, 2, (n, 1))) for n in (25, 300))
    found = search(build_index(gallery, kind, metric), query, 12)
    rows, expected = by_sorting(query, gallery, 12, metric)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, expected, rtol=1e-6)


# Found of the ten nearest, in both metrics: ivf 0.975 and more, hnsw 1.0, pq 0.69 and more (four bytes an image). What
# is required leaves room for the k-means of another FAISS.
@pytest.mark.parametrize(("kind", "recall"), [("ivf", 0.94), ("hnsw", 0.99), ("pq", 0.6)])
@needs_faiss
@pytest.mark.parametrize("metric", METRICS)
def test_approximate_kinds_find_most(kind, recall, metric):
    gallery, query = clustered()
    exact, found = (search(build_index(gallery, each, metric), query, 10) for each in ("exact", kind))
    share = np.mean([len({*a} & {*b}) / 10 for a, b in zip(found.rows, exact.rows, strict=True)])
    assert share >= recall
    assert (np.diff(found.distances, axis=1) >= 0).all()
    if kind != "pq":  # these miss images and do not misjudge them
        true = distances(query.features[:5], gallery.features, metric)
        np.testing.assert_allclose(found.distances[:5], np.take_along_axis(true, found.rows[:5], 1), rtol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [*OURS, *FAISS])
def test_a_saved_index_is_the_index(kind, metric, tmp_path):
    gallery, query = clustered(700, 20)
    index = build_index(gallery, kind, metric)
    save_index(index, tmp_path / "new" / "people.index")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["people.index"]
    again = load_index(str(tmp_path / "new" / "people.index"))
    assert (again.kind, again.metric, again.gallery.model) == (kind, metric, MODEL)
    for name in ("features", "pids", "cameras", "names"):
        np.testing.assert_array_equal(getattr(again.gallery, name), getattr(index.gallery, name))
    found, same = search(index, query, 7), search(again, query, 7)
    np.testing.assert_array_equal(same.rows, found.rows)
    np.testing.assert_array_equal(same.distances, found.distances)


def test_an_exact_index_is_a_file_of_embeddings_too(tmp_path):
    gallery, _ = clustered(50, 1)
    save_index(build_index(gallery), tmp_path / "i.npz")
    np.testing.assert_array_equal(Embeddings.load(tmp_path / "i.npz").features, gallery.features)
    assert Embeddings.load(tmp_path / "i.npz").model == MODEL


@needs_faiss
@pytest.mark.parametrize("kind", ["ivf", "hnsw", "pq"])
def test_an_index_is_the_same_whenever_it_is_built(kind):
    gallery, _ = clustered(700, 1)
    first, second = (faiss_index.to_bytes(build_index(gallery, kind).faiss) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_junk_and_distractors_are_found_like_anything_else():
    gallery = images(np.arange(6, dtype=np.float32)[:, None])
    found = search(build_index(gallery), images(np.zeros((1, 1), np.float32)), 6)
    assert found.rows.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert gallery.pids[found.rows[0, :2]].tolist() == [-1, 0]


def test_approx_asks_for_a_share_of_the_neighbors(monkeypatch):
    asked = []

    def nearest(query, gallery, k, recall):
        asked.append(recall)
        return real(query, gallery, k, recall=recall)

    real = module.nearest
    monkeypatch.setattr(module, "nearest", nearest)
    gallery, query = clustered(100, 3)
    for kind in OURS:
        search(build_index(gallery, kind), query, 2)
    assert asked == [1.0, 0.95]


def test_a_gallery_moves_to_an_accelerator_once(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # the device of the tests serves for one
    gallery, query = clustered(130, 3)
    index = build_index(gallery)
    assert isinstance(index.rows, jax.Array)
    moved = []
    put = jax.device_put

    def device_put(x, *more):
        moved.extend(each.shape for each in jax.tree.leaves(x) if isinstance(each, np.ndarray))
        return put(x, *more)

    monkeypatch.setattr(jax, "device_put", device_put)
    found = [search(index, query, 2) for _ in range(2)]
    assert moved == [(len(query.pids), index.rows.shape[1])] * 2  # the queries alone
    monkeypatch.undo()
    np.testing.assert_array_equal(found[1].rows, search(build_index(gallery), query, 2).rows)


@needs_faiss
def test_what_is_not_found_is_said():
    gallery, query = clustered(700, 4)
    for metric in METRICS:
        found = search(build_index(gallery, "ivf", metric, {"nlist": 50, "nprobe": 1}), query, 200)
        missing = found.rows == -1
        assert missing.any()
        assert not missing[:, 0].any()
        np.testing.assert_array_equal(np.isinf(found.distances), missing)


@pytest.mark.parametrize("kind", [*OURS, *FAISS])
def test_no_queries_find_nothing(kind):
    gallery, query = clustered(700, 1)
    none = Embeddings(query.features[:0], [], [], model=MODEL)
    found = search(build_index(gallery, kind), none, 3)
    assert (found.rows.shape, found.distances.shape) == ((0, 3), (0, 3))


@needs_faiss
def test_rules_follow_from_the_size():
    rules = faiss_index.parameters
    assert rules("ivf", 624, 8, {}) == {"nlist": 16, "nprobe": 8}
    assert rules("ivf", 19732, 1024, {}) == {"nlist": 505, "nprobe": 31}
    assert rules("ivf", 10**6, 1024, {}) == {"nlist": 4000, "nprobe": 250}
    assert rules("ivf", 10**6, 1024, {"nlist": 100}) == {"nlist": 100, "nprobe": 8}
    assert rules("pq", 10**4, 1024, {}) == {"subquantisers": 128}
    assert [rules("pq", 300, d, {})["subquantisers"] for d in (2, 8, 12, 18, 62)] == [1, 1, 1, 2, 2]
    gallery, _ = clustered(700, 1)
    assert build_index(gallery, "ivf", options={"nlist": 9, "nprobe": 3}).faiss.nlist == 9
    graph = build_index(gallery, "hnsw", options={"ef_search": 77, "m": 5}).faiss
    assert (graph.hnsw.efSearch, graph.hnsw.efConstruction, graph.hnsw.nb_neighbors(1)) == (77, 80, 5)


GALLERY = images(np.eye(30, 4, dtype=np.float32) + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "annoy"}, "kind must be exact, approx, flat, ivf, hnsw or pq; found 'annoy'"),
        ({"metric": "l1"}, "metric must be euclidean or cosine; found 'l1'"),
        ({"options": {"m": 3}}, "kind exact has no options; found m"),
        ({"gallery": images(np.ones((0, 3)))}, r"nothing to search in: its features are \(0, 3\)"),
        ({"gallery": images(np.eye(3, 2)), "metric": "cosine"}, r"gallery row 2 \(0002.jpg\) is zero, so it has no"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_index(**({"gallery": GALLERY} | arguments))


@needs_faiss
@pytest.mark.parametrize(
    ("n", "d", "kind", "options", "message"),
    [
        (623, 8, "ivf", {}, "kind ivf needs 624 images or more, and there are 623; use exact for so few"),
        (255, 8, "pq", {}, "kind pq needs 256 images or more, and there are 255"),
        (700, 8, "hnsw", {"m": 1}, "options of kind hnsw are m from 2 to 512, .*; found m=1"),
        (700, 8, "flat", {"nlist": 2}, "options of kind flat are none; found nlist=2"),
        (700, 8, "ivf", {"nlist": 701}, "ivf are nlist from 1 to 700, nprobe from 1 to 700; found nlist=701"),
        (700, 8, "ivf", {"nprobe": 10**9}, "found nprobe=1000000000"),
        (700, 8, "hnsw", {"m": 10**9}, "m from 2 to 512, ef_construction from 1 to 65536, .* found m=1000000000"),
        (700, 8, "hnsw", {"ef_search": 10**9}, "found ef_search=1000000000"),
        (700, 8, "hnsw", {"ef_construction": 10**20}, "found ef_construction="),
        (700, 8, "pq", {"subquantisers": 10**9}, "subquantisers from 1 to 8; found subquantisers=1000000000"),
        (700, 8, "pq", {"subquantisers": 3}, "cuts features of 8 dimensions into 3 parts, which is to be a divisor"),
        (700, 37, "pq", {}, "cuts features of 37 dimensions into 1 parts, .* or hnsw or ivf"),
    ],
)
def test_what_faiss_cannot_do_is_refused(n, d, kind, options, message):
    features = np.random.default_rng(0).normal(size=(n, d))
    with pytest.raises(ValueError, match=message):
        build_index(images(features), kind, options=options)


@needs_faiss
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_a_saved_index_with_an_absurd_width_is_refused(tmp_path, kind):
    index = build_index(images(np.random.default_rng(0).normal(size=(700, 8))), kind)
    if kind == "hnsw":
        index.faiss.hnsw.efSearch = 10**9
    else:
        index.faiss.nprobe = 10**9
    save_index(index, tmp_path / "i.npz")
    with pytest.raises(ValueError, match=r"i\.npz: the index has (ef_search|nprobe) 1000000000; expected \d+ or less"):
        load_index(tmp_path / "i.npz")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["exact", *FAISS])
def test_neither_scale_nor_offset_matters(kind, metric, tmp_path):
    gallery, query = clustered(700, 25)
    save_index(build_index(images(gallery.features * np.float32(2.0**60)), kind, metric), tmp_path / "i.npz")
    plain = search(build_index(gallery, kind, metric), query, 5)
    large = search(load_index(tmp_path / "i.npz"), images(query.features * np.float32(2.0**60)), 5)
    np.testing.assert_array_equal(large.rows, plain.rows)
    # By a power of two, which changes no digit.
    np.testing.assert_array_equal(large.distances, plain.distances * (2.0**60 if metric == "euclidean" else 1))


@needs_faiss
def test_features_far_from_zero_keep_their_order():
    gallery, query = (images(each.features + np.float32(2**12)) for each in clustered(700, 25))
    exact, flat = (search(build_index(gallery, kind), query, 1) for kind in ("exact", "flat"))
    np.testing.assert_array_equal(flat.rows, exact.rows)
    true = distances(query.features[:3], gallery.features, "euclidean").min(axis=1)
    # Squares of 2^12 would leave nothing of these distances in float32.
    np.testing.assert_allclose(flat.distances[:3, 0], true, rtol=1e-4)


@pytest.mark.parametrize("kind", ["exact", FAISS[0]])
def test_what_cannot_be_searched_for_is_refused(kind):
    index = build_index(GALLERY, kind, "cosine")
    for k in (0, 31):
        with pytest.raises(ValueError, match=f"`k` must be between 1 and the 30 images of the index; found {k}"):
            search(index, GALLERY, k)
    with pytest.raises(ValueError, match="query features have 3 dimensions and .* 4; both must come from the same emb"):
        search(index, images(np.ones((2, 3))), 1)
    with pytest.raises(ValueError, match=r"query row 1 \(0001.jpg\) is zero"):
        search(index, images(np.eye(2, 4) * [[1], [0]]), 1)


@pytest.mark.parametrize("kind", ["exact", FAISS[0]])
@pytest.mark.parametrize(
    ("gallery", "query", "message"),
    [
        ("a", "b", "index is of the model a and the query of the model b; .*Embed the queries with the model of the"),
        ("a", "", "index is of the model a and the query of an unknown model; .* give Embeddings model='a'"),
        ("", "b", "index is of an unknown model and the query of the model b; .*Build the index from embeddings that"),
        ("a", "a", None),
        ("", "", None),
    ],
)
def test_an_index_answers_its_own_model_only(kind, gallery, query, message, tmp_path):
    save_index(build_index(dataclasses.replace(GALLERY, model=gallery), kind), tmp_path / "i.npz")
    index, asked = load_index(tmp_path / "i.npz"), dataclasses.replace(GALLERY, model=query)
    if message is None:
        assert search(index, asked, 1).rows.shape == (30, 1)
    else:
        with pytest.raises(ValueError, match=message):
            search(index, asked, 1)


def test_faiss_is_asked_for_by_its_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"need FAISS: pip install 'svdnet-jax\[faiss\]'; exact needs nothing more"):
        build_index(GALLERY, "hnsw")
    assert search(build_index(GALLERY), GALLERY, 1).rows.shape == (30, 1)


def rewritten(path, **changes):
    """The file with some arrays changed or (None) left out."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": None, "model": None}, "no array kind, model, so this is no index; expected one as `svdnet search`"),
        ({"kind": np.array("annoy")}, "kind must be exact, .*; found 'annoy'"),
        ({"kind": np.array(["exact"])}, "kind must be one text"),
        ({"metric": np.array(7)}, "metric must be one text, found an array of int64"),
        ({"features": None}, "no array features, which an index of kind exact has; build it anew"),
        ({"kind": np.array("hnsw")}, "no array faiss, sha256, scale, centre, which an index of kind hnsw has"),
        ({"pids": np.ones(3, int)}, r"pids must be \(30,\)"),
        ({"names": np.array([None] * 30, object)}, "cannot read names .*no pickled objects"),
    ],
)
def test_a_file_with_other_arrays_is_refused_by_name(changes, message, tmp_path):
    save_index(build_index(GALLERY), tmp_path / "i.npz")
    rewritten(tmp_path / "i.npz", **changes)
    with pytest.raises(ValueError, match=r"i\.npz: " + message):
        load_index(tmp_path / "i.npz")


@needs_faiss
def test_faiss_reads_its_own_bytes_only(tmp_path, monkeypatch):
    path = tmp_path / "i.npz"
    save_index(build_index(GALLERY, "flat"), path)
    content = faiss_index.to_bytes(build_index(GALLERY, "flat").faiss)
    other = content.copy()
    other[40] ^= 1
    no_bytes = np.frombuffer(content, np.int8)
    for change in ({"faiss": other}, {"faiss": content[:-1]}, {"faiss": no_bytes}, {"sha256": np.array("0" * 64)}):
        save_index(build_index(GALLERY, "flat"), path)
        rewritten(path, **change)
        with monkeypatch.context() as patch:
            patch.setattr(faiss_index, "from_bytes", None)  # is not reached
            with pytest.raises(ValueError, match=r"i\.npz: .*its SHA-256 differs"):
                load_index(path)
    few = {name: getattr(GALLERY, name)[:7] for name in ("names", "pids", "cameras")}
    for change in (few, {"centre": np.zeros(3, np.float32)}, {"scale": np.ones(4)}, {"centre": np.zeros(4, int)}):
        save_index(build_index(GALLERY, "flat"), path)
        rewritten(path, **change)
        with pytest.raises(
            ValueError, match="the arrays do not belong together: images, and shapes and types of scale"
        ):
            load_index(path)
    save_index(build_index(GALLERY, "flat"), path)
    rewritten(path, faiss=content[:9], sha256=np.array(module._sha256(content[:9])))
    with pytest.raises(ValueError, match=r"i\.npz: FAISS .* cannot read its index"):
        load_index(path)


@pytest.mark.parametrize("content", [b"", b"name,pid\n", b"PK\x03\x04"])
def test_a_foreign_file_is_refused_by_name(content, tmp_path):
    (tmp_path / "i.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"i\.npz: not an \.npz file, or one cut short; expected an index"):
        load_index(tmp_path / "i.npz")
    GALLERY.save(tmp_path / "e.npz")
    with pytest.raises(ValueError, match=r"e\.npz: no array kind, metric, so this is no index"):
        load_index(tmp_path / "e.npz")
    with pytest.raises(FileNotFoundError, match="nope"):
        load_index(tmp_path / "nope.npz")


@pytest.mark.parametrize("kind", ["exact", FAISS[0]])
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_noticed_or_changes_nothing(kind, data, tmp_path):
    path = tmp_path / "i.npz"
    gallery = images(np.eye(3, 4, dtype=np.float32) + 1)
    save_index(build_index(gallery, kind), path)
    whole = path.read_bytes()
    place, flip = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
    try:
        found = load_index(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
        return
    assert (found.kind, found.metric, found.gallery.model) == (kind, "euclidean", MODEL)
    for name in ("pids", "cameras", "names"):
        np.testing.assert_array_equal(getattr(found.gallery, name), getattr(gallery, name))
    assert search(found, gallery, 1).rows[:, 0].tolist() == [0, 1, 2]
