"""The comparison of an exported network with its run notices what it is there for."""

import time

import numpy as np
import pytest

from svdnet_jax.config.schema import Eval
from svdnet_jax.data.types import Dataset, Split
from svdnet_jax.errors import MachineError
from svdnet_jax.export import check

PEOPLE = np.arange(1, 41)


def split(pids, camera, seed):
    random = np.random.default_rng(seed)
    images = random.integers(0, 255, (len(pids), 4, 2, 3), np.uint8)
    # One pixel says who it is, so that retrieval has something to find.
    images[:, 0, 0, :] = np.array(pids)[:, None] * 5
    names = np.array([f"{n:04}.jpg" for n in range(len(pids))])
    return Split(images, np.array(pids), np.full(len(pids), camera), names)


@pytest.fixture
def dataset():
    """Queries of forty people, of whom the last ten are in no gallery image; junk and distractors in the gallery."""
    gallery = [*np.repeat(PEOPLE[:30], 12), *[-1] * 50, *[0] * 200]
    return Dataset("drawn", split([1, 2], 1, 0), split(PEOPLE, 1, 1), split(gallery, 2, 2))


def features(images):
    return np.asarray(images, np.float32).reshape(len(images), -1)


def test_queries_that_can_be_answered_are_chosen_evenly_with_an_answer_of_each(dataset):
    query, gallery = check.choose(dataset, 10, cross_camera=True)
    assert (len(query), len(gallery)) == (10, 40)
    assert set(query.pids) <= set(gallery.pids)
    assert (query.pids.min(), query.pids.max()) == (1, 30)
    assert 0 in gallery.pids
    everything, _ = check.choose(dataset, 1000, cross_camera=True)
    assert everything.pids.tolist() == list(range(1, 31))


def test_the_gallery_is_not_larger_than_it_is(dataset):
    small = Dataset("small", dataset.train, split([1, 2], 1, 3), split([1, 2, 2], 2, 4))
    query, gallery = check.choose(small, 64, cross_camera=True)
    assert (query.pids.tolist(), gallery.pids.tolist()) == ([1, 2], [1, 2, 2])


def test_differences_are_those_of_features_and_of_retrieval(dataset):
    query, gallery = check.choose(dataset, 10, cross_camera=True)

    def noisy(images):
        found = features(images)
        found[:, 3] += 2.0
        return found

    compared = check.compare(features, noisy, query, gallery, Eval(), "float32")
    own = np.concatenate([features(query.images), features(gallery.images)])
    assert compared.difference == 2.0
    assert compared.spread == pytest.approx(np.abs(own - own.mean(axis=0)).max())
    assert (compared.queries, compared.gallery) == (10, 40)
    assert compared.own.mAP == compared.exported.mAP  # a vector that is common to all changes no distance
    blurred = check.compare(features, lambda images: features(images) / 1.1, query, gallery, Eval(), "bfloat16")
    assert blurred.own.valid_queries == blurred.exported.valid_queries == 10
    assert blurred.difference == pytest.approx(255 * (1 - 1 / 1.1), rel=0.05)


@pytest.mark.parametrize("wrong", [lambda x: x[:, ::-1], lambda x: x * 1.1, lambda x: x * np.nan])
def test_other_features_than_those_of_the_run_are_refused(dataset, wrong):
    query, gallery = check.choose(dataset, 10, cross_camera=True)
    with pytest.raises(MachineError, match="the file gives other features than the run: the largest difference is "):
        check.compare(features, lambda images: wrong(features(images)), query, gallery, Eval(), "float32")


def test_the_first_call_is_not_timed_and_the_median_is_told():
    waits = iter([0.2, 0.0, 0.03, 0.0, 0.0, 0.0])

    def slow(images):
        time.sleep(next(waits))
        return images

    assert check.seconds(slow, np.zeros(1), calls=5) < 0.02
    assert list(waits) == []
    assert check.seconds(lambda images: time.sleep(0.02) or images, np.zeros(1), most=0.03) >= 0.02
