"""People taken out of training to choose settings on: who, how many, and that each of their queries can be answered."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svdnet_jax.data.holdout import hold_out
from svdnet_jax.data.types import Dataset, Split, check_identities, fingerprint
from svdnet_jax.errors import DataError


def split(*rows):
    """Images of (pid, camera), each pixel telling its row."""
    pids, cameras = np.array(rows, np.int64).reshape(-1, 2).T
    images = np.arange(len(rows), dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 2, 3), np.uint8)
    names = np.array([f"{pid:04d}_c{camera}_{n:03d}.jpg" for n, (pid, camera) in enumerate(rows)], np.str_)
    return Split(images, pids, cameras, names)


def whole(train):
    return Dataset("d", train, split((900, 1)), split((900, 2), (-1, 1)))


# Persons 1 to 4 can be held out; 5 was seen by one camera, 6 once by each, 7 has one camera with a second image.
TRAIN = split(
    *[(pid, camera) for pid in (1, 2, 3, 4) for camera in (1, 2, 2, 3, 1, 3)],
    *[(5, 1), (5, 1), (5, 1)],
    *[(6, 1), (6, 2), (6, 3)],
    *[(7, 1), (7, 2), (7, 2)],
)


def test_people_move_as_a_whole_and_the_test_set_is_gone():
    dataset = whole(TRAIN)
    held = hold_out(dataset, 2, 0)
    assert held.name == "d (validation: 2 of 7 training identities)"
    names = np.concatenate([held.train.names, held.query.names, held.gallery.names])
    assert sorted(names) == sorted(TRAIN.names)
    people = set(held.query.pids)
    assert len(people) == 2
    assert set(held.gallery.pids) == people
    assert not people & set(held.train.pids)
    check_identities(held)


def test_the_first_image_of_each_camera_is_the_query():
    order = np.random.default_rng(0).permutation(len(TRAIN))
    shuffled = Split(*(getattr(TRAIN, part)[order] for part in ("images", "pids", "cameras", "names")))
    for train in (TRAIN, shuffled):
        held = hold_out(whole(train), 4, 0)
        expected = {}
        for name in sorted(TRAIN.names[TRAIN.pids <= 4]):
            expected.setdefault(name[:7], name)
        assert sorted(held.query.names) == sorted(expected.values())
        assert len(held.query) == 12
        assert len(held.gallery) == 12


def test_images_stay_with_their_names():
    held = hold_out(whole(TRAIN), 3, 1)
    for part in (held.train, held.query, held.gallery):
        for image, pid, camera, name in zip(part.images, part.pids, part.cameras, part.names, strict=True):
            row = int(name[8:11])
            assert (image == row).all()
            assert (TRAIN.pids[row], TRAIN.cameras[row]) == (pid, camera)


def test_people_keep_their_names():
    named = replace(whole(TRAIN), people={1: "anna"})
    assert hold_out(named, 2, 0).people == {1: "anna"}


def test_the_seed_draws():
    drawn = {tuple(np.unique(hold_out(whole(TRAIN), 2, seed).query.pids)) for seed in range(40)}
    assert len(drawn) == 6
    assert fingerprint(hold_out(whole(TRAIN), 2, 5)) == fingerprint(hold_out(whole(TRAIN), 2, 5))


def test_a_known_hash_of_all_images_is_not_taken_for_that_of_some():
    known = Split(TRAIN.images, TRAIN.pids, TRAIN.cameras, TRAIN.names, images_hash="of all")
    assert fingerprint(hold_out(whole(known), 2, 0)) == fingerprint(hold_out(whole(TRAIN), 2, 0))


def test_too_many_are_refused():
    with pytest.raises(DataError, match=r"`data.validation` 5: d has 7 training identities, 4 of them .*give 1 to 4"):
        hold_out(whole(TRAIN), 5, 0)
    with pytest.raises(DataError, match="`data.validation` 0"):
        hold_out(whole(TRAIN), 0, 0)
    few = split(*[(pid, camera) for pid in (1, 2, 3) for camera in (1, 2, 2, 1)])
    with pytest.raises(DataError, match="two must be left to train on; give 1 to 1"):
        hold_out(whole(few), 2, 0)


def test_without_the_camera_rule_one_camera_will_do():
    one_camera = split(*[(pid, 1) for pid in (1, 1, 2, 2, 3, 3, 4)])
    with pytest.raises(DataError, match="0 of them with two images in each of two cameras"):
        hold_out(whole(one_camera), 1, 0)
    held = hold_out(whole(one_camera), 2, 0, cross_camera=False)
    assert len(held.query) == len(held.gallery) == 2
    assert 4 not in held.query.pids


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 3)), min_size=1, max_size=60), st.booleans())
@settings(deadline=None)
def test_every_query_has_a_right_answer(rows, cross_camera):
    try:
        held = hold_out(whole(split(*rows)), 1, 0, cross_camera)
    except DataError:
        return
    for pid, camera in zip(held.query.pids, held.query.cameras, strict=True):
        others = held.gallery.cameras[held.gallery.pids == pid]
        assert ((others != camera) if cross_camera else (others > 0)).any()


def test_of_people_of_one_camera_none_can_be_held_out():
    one = Split(TRAIN.images, TRAIN.pids, np.ones(len(TRAIN), int), TRAIN.names)
    with pytest.raises(DataError, match="two must be left to train on; none can be held out"):
        hold_out(whole(one), 1, 0)
