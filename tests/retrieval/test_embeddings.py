"""`Embeddings`: what it takes and refuses, and its files."""

import io
import zipfile
from dataclasses import replace

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from svdnet_jax.retrieval.distances import points
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate


def sample(n=3):
    rng = np.random.default_rng(0)
    names = [f"{i:04d}_c1s1_000451_03.jpg" for i in range(n)]
    features = rng.normal(size=(n, 4)).astype(np.float32)
    return Embeddings(features, np.arange(n) - 1, np.arange(n) % 2, np.array(names))


def assert_same(a, b):
    for name in ("features", "pids", "cameras", "names"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y, err_msg=name)


def write(path, **changes):
    """An .npz with the four arrays, changed or (None) left out."""
    whole = sample()
    arrays = {name: getattr(whole, name) for name in ("features", "pids", "cameras", "names")} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def test_arrays_are_brought_to_one_form():
    made = Embeddings(jnp.ones((2, 3), jnp.bfloat16), [1, -1], np.array([1, 2], np.uint8))
    chex.assert_shape(made.features, (2, 3))
    assert (made.features.dtype, made.pids.dtype, made.cameras.dtype) == (np.float32, np.int64, np.int64)
    assert made.names.tolist() == ["0", "1"]


def test_float32_features_are_not_copied():
    features = np.ones((2, 3), np.float32)
    assert Embeddings(features, [1, 2], [1, 1]).features is features


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.ones(3)}, r"features must be \(N, D\), one row per image; found the shape \(3,\)"),
        ({"features": np.ones((3, 4, 1, 1))}, r"Flatten each image's: features.reshape\(len\(features\), -1\)"),
        ({"features": np.ones((4, 3))}, r"found \(3,\). The features are \(4, 3\): transpose them .*\(features.T\)"),
        ({"features": np.array([["a"]] * 3)}, "features must be real numbers, found an array of <U1"),
        ({"features": np.ones((3, 4), complex)}, "real numbers, found an array of complex128"),
        ({"features": np.ones((2, 4))}, r"pids must be \(2,\), one per row of features; found \(3,\)"),
        ({"pids": np.ones((3, 1), int)}, r"pids must be \(3,\), one per row of features; found \(3, 1\)"),
        ({"pids": [[1, 2, 3]]}, r"found \(1, 3\). Flatten it: pids.ravel\(\)"),
        (
            {"pids": [1.0, 2.0, 3.0]},
            r"must be integers, found an array of float64. Convert them: pids.astype\(np.int64\)",
        ),
        ({"pids": ["0002", "-1", "0"]}, "Number them, each identity by one number in query and gallery.*-1 marks junk"),
        (
            {"pids": np.array([1, -1, 2]).astype(np.uint16)},
            "pids hold 65535, which is what -1 .junk. becomes in uint16",
        ),
        ({"pids": np.array([1, -1, 2]).astype(np.uint64)}, "which is what -1 .junk. becomes in uint64"),
        ({"cameras": [1, 2]}, r"cameras must be \(3,\), one per row of features; found \(2,\)"),
        ({"cameras": ["c1", "c2", "c3"]}, "found an array of <U2. Number them, each camera by one number"),
        ({"names": ["a", "b"]}, r"names must be \(3,\), one per row of features; found \(2,\)"),
        ({"names": [1, 2, 3]}, "names must be text, found an array of int64"),
        ({"names": np.array(["a", None, "b"], object)}, "names must be text, found an array of object"),
        ({"model": 7}, r"model must be one text, found an array of int64 with the shape \(\)"),
        ({"model": ["a", "b", "c"]}, r"model must be one text, found an array of <U1 with the shape \(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    good = {"features": np.ones((3, 4)), "pids": [1, 2, 3], "cameras": [1, 1, 1]}
    with pytest.raises(ValueError, match=message):
        Embeddings(**good | change)


def test_names_of_people_are_kept_in_the_file_and_read_without_them_too(tmp_path):
    named = replace(sample(), people={1: "anna", 7: "who is not here"})
    named.save(tmp_path / "named.npz")
    read = Embeddings.load(tmp_path / "named.npz")
    assert_same(read, named)
    assert [read.person(row) for row in range(3)] == ["-1", "0", "anna"]
    assert read.people == {1: "anna"}
    sample().save(tmp_path / "numbers.npz")
    assert "people.npy" not in zipfile.ZipFile(tmp_path / "numbers.npz").namelist()
    assert Embeddings.load(tmp_path / "numbers.npz").person(2) == "1"


@pytest.mark.parametrize(
    ("people", "message"),
    [
        (np.array(["anna", "ben"]), r"people must be \(3,\), one per row of features; found \(2,\)"),
        (np.arange(3), "people must be text, found an array of int64"),
    ],
)
def test_names_of_people_that_do_not_fit_are_refused(people, message, tmp_path):
    write(tmp_path / "bad.npz", people=people)
    with pytest.raises(ValueError, match=message):
        Embeddings.load(tmp_path / "bad.npz")


def test_one_pid_has_one_name(tmp_path):
    write(tmp_path / "bad.npz", pids=np.array([4, 5, 4]), people=np.array(["anna", "ben", "carl"]))
    with pytest.raises(ValueError, match="row 2 calls pid 4 'carl', and another 'anna'"):
        Embeddings.load(tmp_path / "bad.npz")


def test_pids_of_two_manifests_are_not_compared():
    anna, ben = (replace(sample(), people={1: name}) for name in ("anna", "ben"))
    with pytest.raises(ValueError, match="1 pids mean other people .* the first is 1: anna and ben"):
        evaluate(anna, ben)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_features_that_are_not_finite_are_refused_with_the_row(bad):
    features = np.zeros((5, 4))
    features[[2, 4], 3] = bad
    with pytest.raises(ValueError, match="2 of 5 rows are not, the first is row 2"):
        Embeddings(features, np.arange(5), np.arange(5))


@pytest.mark.parametrize("name", ["e.npz", "e.features", "e", "new/folder/e.npz"])
def test_a_file_comes_back_as_it_was_from_exactly_its_path(tmp_path, name):
    sample().save(tmp_path / name)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / name]
    assert_same(Embeddings.load(tmp_path / name), sample())


def test_a_file_holds_the_four_arrays_and_no_pickle(tmp_path):
    names = np.array(["a", "b"], object)
    Embeddings(np.ones((2, 3)), [1, 2], [1, 1], names).save(str(tmp_path / "e.npz"))
    with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
        assert archive.files == ["features", "pids", "cameras", "names"]
        assert {name: archive[name].dtype.kind for name in archive.files} == {
            "features": "f",
            "pids": "i",
            "cameras": "i",
            "names": "U",
        }


def test_empty_embeddings_keep_their_length(tmp_path):
    Embeddings(np.ones((0, 7)), [], []).save(tmp_path / "e.npz")
    found = Embeddings.load(tmp_path / "e.npz")
    assert found.features.shape == (0, 7)
    assert found.names.shape == (0,)


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "e.npz"
    sample().save(path)

    def fail(file, **_):
        file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        sample(5).save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert_same(Embeddings.load(path), sample())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_features_of_other_types_are_converted(tmp_path, dtype):
    write(tmp_path / "e.npz", features=np.arange(12, dtype=dtype).reshape(3, 4))
    found = Embeddings.load(tmp_path / "e.npz")
    assert found.features.dtype == np.float32
    np.testing.assert_array_equal(found.features, np.arange(12, dtype=np.float32).reshape(3, 4))


def test_absent_names_are_numbered_and_bytes_decoded(tmp_path):
    write(tmp_path / "a.npz", names=None)
    write(tmp_path / "b.npz", names=np.array(["é.jpg".encode(), b"b", b"c"]), extra=np.ones(2))
    assert Embeddings.load(tmp_path / "a.npz").names.tolist() == ["0", "1", "2"]
    assert Embeddings.load(tmp_path / "b.npz").names.tolist() == ["é.jpg", "b", "c"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pids": None, "cameras": None},
            "no array pids, cameras; expected features, .*, found features, names. Query",
        ),
        ({"cameras": None}, r"no array cameras; .*give all images one \(np.zeros\(N, int\)\).*`cross_camera` False"),
        ({"features": None, "gallery_f": np.ones(3)}, "no array features; .*found pids, cameras, names, gallery_f"),
        ({"pids": np.array([1, "x", 2], object)}, "cannot read pids .*no pickled objects"),
        (
            {"names": np.array(["a", "b", "c"], object)},
            r"cannot read names .*pickled objects: np.array\(names, dtype=str",
        ),
        ({"cameras": np.ones(2, int)}, r"cameras must be \(3,\), one per row of features; found \(2,\)"),
        ({"names": np.array([b"\xff", b"b", b"c"])}, "'utf-8' codec can't decode"),
        ({"model": np.ones(3)}, "model must be one text, found an array of float64"),
    ],
)
def test_a_file_with_other_arrays_is_refused_by_name(tmp_path, changes, message):
    write(tmp_path / "e.npz", **changes)
    with pytest.raises(ValueError, match=r"e\.npz: " + message):
        Embeddings.load(tmp_path / "e.npz")


def damaged(kind):
    """Bytes that are no good .npz."""
    file = io.BytesIO()
    write(file)
    whole = file.getvalue()
    if kind == "array":
        file = io.BytesIO()
        np.save(file, np.ones(3))
        return file.getvalue()
    if kind == "zip of something else":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("features", "not an array")
        return file.getvalue()
    changed = whole[:150] + bytes([whole[150] ^ 255]) + whole[151:]
    return {"empty": b"", "text": b"features\n", "cut": whole[: len(whole) // 2], "changed": changed}[kind]


@pytest.mark.parametrize("kind", ["array", "zip of something else", "empty", "text", "cut", "changed"])
def test_a_damaged_file_is_refused_by_name(tmp_path, kind):
    (tmp_path / "e.npz").write_bytes(damaged(kind))
    with pytest.raises(ValueError, match=r"e\.npz: (not an \.npz file|cannot read features|no array)"):
        Embeddings.load(tmp_path / "e.npz")


def test_no_changed_byte_gives_another_kind_of_error(tmp_path):
    path = tmp_path / "e.npz"
    replace(sample(), model="3f2a-pooled").save(path)
    whole = path.read_bytes()
    for i in range(0, len(whole), 2):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        try:
            found = Embeddings.load(path)  # the byte was part of a time, or of the word "names"
            np.testing.assert_array_equal(found.features, sample().features)
            np.testing.assert_array_equal(found.pids, sample().pids)
            assert found.model in ("3f2a-pooled", "")  # "": of the word "model"
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017 - either outcome is right


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nope\.npz"):
        Embeddings.load(tmp_path / "nope.npz")


def test_numbers_too_large_for_int64_are_refused():
    with pytest.raises(ValueError, match="pids must fit 64 bits with a sign, found 9223372036854775813"):
        Embeddings(np.ones((2, 3), np.float32), np.array([1, 2**63 + 5], np.uint64), [1, 1])


def test_the_model_is_kept_where_it_is_known(tmp_path):
    for model in ("3f2a09c1d4e5b677-pooled", ""):
        replace(sample(), model=model).save(tmp_path / "e.npz")
        found = Embeddings.load(tmp_path / "e.npz")
        assert (found.model, type(found.model)) == (model, str)
        assert_same(found, sample())
        with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
            assert ("model" in archive.files) == bool(model)


@pytest.mark.parametrize(
    ("query", "gallery", "refused"), [("a", "b", True), ("a", "a", False), ("a", "", False), ("", "b", False)]
)
def test_features_of_two_models_are_not_compared(query, gallery, refused):
    pair = replace(sample(), model=query), replace(sample(), model=gallery)
    rows = np.arange(3)
    if refused:
        with pytest.raises(ValueError, match="query features are of the model a and the gallery features of b"):
            points(pair[0], rows, pair[1], rows, "euclidean")
    else:
        assert len(points(pair[0], rows, pair[1], rows, "euclidean").query) == 3


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint32])
def test_digits_that_float32_would_lose_are_kept(tmp_path, dtype):
    values = np.array([[300_000, 300_001], [2**25, 2**25 + 1]]).astype(dtype)
    Embeddings(values, [1, 2], [1, 1]).save(tmp_path / "e.npz")
    found = Embeddings.load(tmp_path / "e.npz").features
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, values)
    assert Embeddings(values[:1], [1], [1]).features.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -4e38])
def test_numbers_beyond_float32_are_refused_with_their_row(value):
    with pytest.raises(ValueError, match=r"finite in float32: 1 of 3 rows are not, the first is row 1\. NaN"):
        Embeddings(np.array([[1.0, 2], [1, value], [3, 4]]), [1, 2, 3], [1, 1, 1])
    with pytest.raises(ValueError, match="must not vanish in float32"):
        Embeddings(np.array([[1e-300, 0], [2e-300, 0]]), [1, 2], [1, 1])


def test_float16_zeros_of_both_signs_and_one_identity_are_measured():
    from svdnet_jax.retrieval.distributions import distance_distributions
    from svdnet_jax.retrieval.metrics import evaluate

    features = np.array([[0.0, 1], [-0.0, 1], [1, 0]], np.float16)
    one = Embeddings(features, [7, 7, 7], [1, 2, 3])
    assert evaluate(one, one).mAP == 1
    with pytest.raises(ValueError, match="no pair of two identities"):
        distance_distributions(one, one)
    # Zero and minus zero are one number: the images tie, and the first in the gallery is first.
    two = Embeddings(features[[1, 0]], [7, 8], [1, 1])
    assert evaluate(Embeddings(features[:1], [8], [2]), two).first_hit.tolist() == [2]
    zero = Embeddings(0 * features, [7, 7, 7], [1, 2, 3])
    assert evaluate(zero, zero).mAP == 1
    with pytest.raises(ValueError, match="is zero, so it has no cosine"):
        evaluate(zero, zero, "cosine")
