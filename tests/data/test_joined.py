"""Several data sets as one to train on: nobody becomes somebody else, and what was joined is kept."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svdnet_jax.data.joined import join
from svdnet_jax.data.types import Dataset, Split, check_identities, fingerprint, labels
from svdnet_jax.errors import DataError

SIZE = (8, 4)


def split(pids, cameras=None, seed=0, size=SIZE, name="x"):
    rng = np.random.default_rng([seed, len(pids), *np.abs(pids)])
    cameras = np.ones(len(pids), int) if cameras is None else cameras
    names = np.array([f"{name}{row}.jpg" for row in range(len(pids))], np.str_)
    return Split(rng.integers(0, 256, (len(pids), *size, 3), np.uint8), np.array(pids, int), np.array(cameras), names)


def market(seed=0, size=SIZE):
    train = split([3, 3, 7], [1, 6, 1], seed, size)
    gallery = split([9, 0, -1, 11], [2, 2, 3, 9], seed, size, "g")
    return Dataset("market", train, split([9], [1], seed, size, "q"), gallery, {3: "anna"})


def duke(size=SIZE):
    train = split([3, 0 + 5, 9], [1, 2, 7], 5, size)
    gallery = split([4, 4, 0, -1], [2, 3, 1, 1], 5, size, "g")
    return Dataset("duke", train, split([4], [1], 5, size, "q"), gallery, {5: "ben"})


@pytest.fixture
def joining(tmp_path):
    said = []

    def call(first, *more, **options):
        said.clear()
        return join(first, more, tmp_path / "cache", SIZE, said.append, **options)

    call.said = said
    call.cache = tmp_path / "cache"
    return call


def test_identities_and_cameras_of_two_sets_are_kept_apart(joining):
    joined = joining(market(), duke())
    assert joined.name == "market + duke"
    assert joined.train.pids.tolist() == [3, 3, 7, 12, 13, 14]
    assert joined.train.cameras.tolist() == [1, 6, 1, 10, 11, 12]
    assert labels(joined.train.pids)[1] == 5
    assert joined.train.names[3:].tolist() == [f"duke/x{row}.jpg" for row in range(3)]
    assert joined.people == {3: "anna", 12: "duke/3", 13: "duke/ben", 14: "duke/9"}
    np.testing.assert_array_equal(joined.train.images, [*market().train.images, *duke().train.images])
    check_identities(joined)


def test_the_first_is_tested_as_it_is_and_the_others_by_their_names(joining):
    joined = joining(market(), duke(), replace(market(seed=1), name="duke"))
    np.testing.assert_array_equal(joined.query.images, market().query.images)
    assert joined.gallery.pids.tolist() == [9, 0, -1, 11]
    assert [other.name for other in joined.others] == ["duke", "duke (2)"]
    assert joined.others[0].gallery.pids.tolist() == [4, 4, 0, -1]


def test_a_set_without_queries_is_trained_on_and_said_not_to_be_tested(joining):
    other = replace(duke(), query=split([]))
    assert joining(market(), other).others == ()
    assert "note: duke: has no queries, or no gallery. It is trained on and not tested." in joining.said
    joining(market(), other, combine_all=True)
    assert not any("not tested" in line for line in joining.said)


NUMBERS = st.lists(st.integers(1, 2**40), min_size=1, max_size=6)


@given(st.lists(NUMBERS, min_size=2, max_size=3))
@settings(max_examples=30, deadline=None)
def test_two_images_show_one_person_if_they_are_of_one_set_and_number(tmp_path_factory, pids):
    folder = tmp_path_factory.mktemp("joined")
    sets = [Dataset(f"d{n}", split(each, each, n), split([]), split([])) for n, each in enumerate(pids)]
    joined = join(sets[0], sets[1:], folder, SIZE, lambda line: None).train
    whose = [(n, pid) for n, each in enumerate(pids) for pid in each]
    for numbers in (joined.pids.tolist(), joined.cameras.tolist()):
        assert len(set(zip(numbers, whose, strict=True))) == len(set(whose)) == len(set(numbers))


def test_images_of_two_sizes_get_the_size_of_the_network(joining):
    images = joining(market(), duke(size=(16, 8))).train.images
    assert images.shape == (6, *SIZE, 3)
    np.testing.assert_array_equal(images[:3], market().train.images)
    assert abs(images[3:].mean() - duke(size=(16, 8)).train.images.mean()) < 3


def test_what_was_joined_is_kept_until_something_changes(joining):
    joined = joining(market(), duke())
    assert len(joining.said) == 1
    assert "market + duke: joining 6 training images" in joining.said[0]
    assert fingerprint(joining(market(), duke())) == fingerprint(joined)
    assert joining.said == []
    assert joining(market(), replace(duke(), people={3: "carl"})).people[12] == "duke/carl"
    assert joining.said == []
    assert fingerprint(joining(market(seed=1), duke())) != fingerprint(joined)
    assert len(joining.said) == 1
    [folder, _] = sorted(joining.cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    with (folder / "train_pids.npy").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\1")
    assert fingerprint(joining(market(), duke())) == fingerprint(joined)
    assert "is taken away and made again" in joining.said[0]


def test_the_fingerprint_is_of_the_test_sets_too(joining):
    joined = joining(market(), duke())
    assert fingerprint(joined) != fingerprint(replace(joined, others=()))
    other = replace(joined.others[0], query=market().query)
    assert fingerprint(joined) != fingerprint(replace(joined, others=(other,)))


def test_all_of_a_set_but_junk_and_distractors_may_be_trained_on(joining):
    joined = joining(market(), duke(), combine_all=True)
    assert joined.others == ()
    assert joined.train.pids.tolist() == [3, 3, 7, 12, 14, 15, 13, 13, 13]
    assert joined.people[13] == "duke/4"
    check_identities(joined)


def test_an_image_that_is_query_and_gallery_is_trained_on_once(joining):
    both = split([4, 4], [1, 2], 5, name="b")
    joined = joining(market(), replace(duke(), query=both, gallery=both), combine_all=True)
    assert joined.train.names[6:].tolist() == ["duke/b0.jpg", "duke/b1.jpg"]


def test_sets_that_cannot_be_joined_are_refused(joining):
    with pytest.raises(DataError, match="`data.more` market .2.: is trained on already"):
        joining(market(), market())
    with pytest.raises(DataError, match="`data.more` duke: the train split has no images"):
        joining(market(), replace(duke(), train=split([])))
    with pytest.raises(DataError, match="duke: 1 training images have pid -1 or 0"):
        joining(market(), replace(duke(), train=split([3, 0])))
    with pytest.raises(DataError, match="market: has identities or cameras numbered up to"):
        joining(replace(market(), train=split([3, 2**62])), duke())
