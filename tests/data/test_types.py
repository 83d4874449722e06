"""What a data set must obey before anything is trained on it, and how it is told from another."""

import dataclasses

import numpy as np
import pytest

from svdnet_jax.config.schema import Config, Eval
from svdnet_jax.data.types import Dataset, Split, array_hash, check_identities, fingerprint
from svdnet_jax.errors import DataError
from svdnet_jax.runs.dataset import count_valid


def split(*rows):
    pids, cameras = np.array(rows, np.int64).reshape(-1, 2).T
    return Split(np.zeros((len(rows), 4, 2, 3), np.uint8), pids, cameras, np.array([str(i) for i in pids]))


def test_identities_and_protocol_are_checked_before_training():
    gallery = split((3, 2), (0, 1), (-1, 1))
    gallery = dataclasses.replace(gallery, images=gallery.images + 1)  # else the query would be in it
    fine = Dataset("d", split((1, 1), (2, 1)), split((3, 1)), gallery)
    check_identities(fine)
    assert count_valid(fine, Config().eval) == 1
    same_camera = Dataset("d", fine.train, split((3, 2), (-1, 2)), fine.gallery)
    assert count_valid(same_camera, Config(eval=Eval(cross_camera=False)).eval) == 1
    with pytest.raises(DataError, match="1 have some but all from their own camera"):
        count_valid(same_camera, Config().eval)
    with pytest.raises(DataError, match="1 identities are in both training and test, the first is 2"):
        check_identities(Dataset("d", fine.train, split((2, 1)), split((2, 2))))
    with pytest.raises(DataError, match="1 training images have pid -1 or 0"):
        check_identities(Dataset("d", split((0, 1), (2, 1)), fine.query, fine.gallery))
    with pytest.raises(DataError, match="two identities at least"):
        check_identities(Dataset("d", split((2, 1)), fine.query, fine.gallery))
    with pytest.raises(DataError, match="query split has no images"):
        check_identities(Dataset("d", fine.train, split(), fine.gallery))


def test_the_fingerprint_sees_every_part_of_a_data_set():
    one = Dataset("d", split((1, 1), (2, 1)), split((3, 1)), split((3, 2)))
    assert fingerprint(one) == fingerprint(dataclasses.replace(one, name="another name"))
    brighter = dataclasses.replace(one.query, images=one.query.images + 1)
    others = [
        dataclasses.replace(one, query=brighter),
        dataclasses.replace(one, gallery=split((3, 1))),
        dataclasses.replace(one, gallery=split((4, 2))),
        dataclasses.replace(one, train=one.query, query=one.train),
    ]
    assert len({fingerprint(each) for each in (one, *others)}) == 5


def test_a_hash_sees_type_shape_and_content():
    one = np.arange(6, dtype=np.int32)
    others = [one.reshape(2, 3), one.astype(np.int64), one[::-1], one.view(np.uint32)]
    assert len({array_hash(array) for array in (one, *others)}) == 5
    assert array_hash(one[::-1]) == array_hash(one[::-1].copy())
