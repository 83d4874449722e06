"""Data whose query set is its gallery: manifests say it, a query never finds itself, and how many are left is said."""

import numpy as np
import pytest
from small_data import SIZE, write_manifest

from svdnet_jax.config.schema import Eval
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.holdout import hold_out
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.errors import DataError
from svdnet_jax.retrieval import Embeddings, evaluate
from svdnet_jax.runs.dataset import count_valid

# As SOP, CUB, Cars and In-shop are given; e.jpg is the only image of its class.
TEXT = """path,identity,split
a.jpg,cup,train
b.jpg,cup,train
f.jpg,jug,train
g.jpg,jug,train
h.jpg,mug,train
c.jpg,pan,query+gallery
d.jpg,pan,query+gallery
e.jpg,pot,query+gallery
"""


def load(tmp_path, text=TEXT):
    root = write_manifest(tmp_path / "shop", text, [f"{name}.jpg" for name in "abcdefgh"])
    return load_dataset(root, tmp_path / "cache", SIZE)


def embed(split):
    return Embeddings(split.images.reshape(len(split), -1).astype(float), split.pids, split.cameras, split.names)


def test_a_query_does_not_find_itself(tmp_path):
    dataset = load(tmp_path)
    assert dataset.query.names.tolist() == dataset.gallery.names.tolist() == ["c.jpg", "d.jpg", "e.jpg"]
    assert count_valid(dataset, Eval()) == 2
    report = evaluate(embed(dataset.query), embed(dataset.gallery))
    assert report.right.images.tolist() == [1, 0]  # c finds d, d finds c
    assert report.valid_queries == 2


def test_how_many_queries_are_left_is_said(tmp_path):
    root = write_manifest(tmp_path / "shop", TEXT, [f"{name}.jpg" for name in "abcdefgh"])
    [note] = find_layout(root, root).notes
    assert "(leave-self-out); 2 of 3 queries have another image of their identity" in note


def test_without_the_rule_it_is_refused(tmp_path):
    with pytest.raises(DataError, match="3 of 3 queries are in the gallery too, the first is c.jpg.*find itself"):
        count_valid(load(tmp_path), Eval(cross_camera=False))


def test_images_of_one_name_that_are_two_are_not_refused(tmp_path):
    dataset = load(tmp_path, TEXT.replace("d.jpg,pan,query+gallery", "d.jpg,pan,gallery"))
    dataset.gallery.names[:] = np.array(["x", "c.jpg", "y"])
    assert count_valid(dataset, Eval(cross_camera=False)) == 2


def test_with_cameras_the_rule_is_that_of_cameras(tmp_path):
    text = "path,identity,camera,split\na.jpg,1,1,query+gallery\nb.jpg,1,1,query+gallery\nc.jpg,1,2,query+gallery\n"
    root = write_manifest(tmp_path / "shop", text)
    listing = find_layout(root, root)
    assert [crop.camera for crop in listing.splits["query"]] == [1, 1, 2]
    assert listing.notes == ()


def test_held_out_identities_are_query_and_gallery_too(tmp_path):
    held = hold_out(load(tmp_path, TEXT.replace("e.jpg,pot,query+gallery", "e.jpg,mug,train")), 1, seed=0)
    assert held.query.names.tolist() == held.gallery.names.tolist()
    assert len(held.query) == 2
    assert count_valid(held, Eval()) == 2
