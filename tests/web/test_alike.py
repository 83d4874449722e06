"""What makes two images alike, as the page shows it: from the pictures, by the network, and nothing for strangers."""

import io

import numpy as np
import pytest
from drawn import quarter_maps
from PIL import Image
from starlette.testclient import TestClient

from svdnet_jax.reporting.figures.alike import overlay
from svdnet_jax.retrieval.pixel_parts import pixel_parts
from svdnet_jax.runs.pictures import gallery_center
from svdnet_jax.web.alike import GAP, alike_picture
from svdnet_jax.web.answers import NotThere
from svdnet_jax.web.app import create_app
from svdnet_jax.web.guard import allowed_hosts


@pytest.fixture(scope="module")
def client(page):
    return TestClient(create_app(page, allowed_hosts(open_to_others=False)), base_url="http://127.0.0.1:8517")


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


@pytest.mark.parametrize("what", ["alike", "apart"])
@pytest.mark.parametrize("kind", ["query", "gallery"])
def test_the_picture_shows_the_parts_of_both_images(what, kind, page, client):
    panel, row, found = page.sources["good"].panel(), 3, 40
    images = np.stack([np.asarray(page.pictures[kind](row)), np.asarray(page.pictures["gallery"](found))])
    features = quarter_maps(images)["embedding"]
    parts = pixel_parts(*features, "euclidean", gallery_center(panel.gallery, "euclidean"))
    held = panel.query if kind == "query" else panel.gallery
    assert parts.distance == pytest.approx(np.linalg.norm(held.features[row] - panel.gallery.features[found]), rel=1e-5)
    pair = (parts.alike_query, parts.alike_gallery) if what == "alike" else (parts.apart_query, parts.apart_gallery)
    limit = max(np.abs(part).max() for part in pair)
    expected = [overlay(image, part, limit).astype(int) for image, part in zip(images, pair, strict=True)]
    answer = client.get(f"{client.get('/api/about').json()['alike']}good/{kind}/{row}/{found}/{what}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    shown, width = decoded(answer.content), images.shape[2]
    assert shown.shape == (images.shape[1], 2 * width + GAP, 3)
    # JPEG smears colors over some pixels.
    for side, wanted in zip((shown[:, :width], shown[:, -width:]), expected, strict=True):
        assert np.abs(side - wanted).mean() < 8
    assert np.abs(shown[:, :width] - expected[1]).mean() > 10


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("bad/query/3/40/alike", 422, "the weights of this embedding are not kept"),
        ("none/query/3/40/alike", 404, "no embedding 'none'"),
        ("good/query/20/40/alike", 404, "no such image"),
        ("good/query/3/132/alike", 404, "no such image"),
        ("good/train/3/40/alike", 404, "no such image"),
        ("good/query/3/40/why", 404, "there are pictures of"),
    ],
)
def test_what_there_is_not_is_refused(path, status, why, client):
    answer = client.get(f"{client.get('/api/about').json()['alike']}{path}")
    assert answer.status_code == status
    assert why in answer.json()["error"]


def test_negative_rows_are_no_rows(page):
    for row, found in ((-1, 0), (0, -1)):
        with pytest.raises(NotThere):
            alike_picture(page, "good", "query", row, found, "alike")


def test_another_start_of_the_server_has_other_addresses(page, client):
    here = client.get("/api/about").json()["alike"]
    assert client.get("/alike/0123456789abcdef/good/query/3/40/alike").status_code == 404
    assert here.count("/") == 3


def test_a_map_of_one_pixel_says_nothing(page, monkeypatch):
    network = page.networks["0"]()
    flat = network._replace(apply_pixelwise=lambda images: {"embedding": np.ones((2, 1, 1, 12))})
    monkeypatch.setitem(page.networks, "0", lambda: flat)
    with pytest.raises(ValueError, match="is one pixel"):
        alike_picture(page, "good", "query", 0, 0, "alike")
