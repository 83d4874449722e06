"""What makes two images alike, drawn: where parts lie, what their colors say, and the numbers under them."""

import numpy as np
import pytest
from PIL import Image

from svdnet_jax.reporting.figures.alike import ADDS, STRONGEST, TAKES, Pair, alike, overlay, overlays
from svdnet_jax.reporting.figures.style import save
from svdnet_jax.retrieval.pixel_parts import pixel_parts

GRAY = np.full((40, 20, 3), 128, np.uint8)


def nearer(pixel, color):
    return np.abs(pixel.astype(float) - color).sum()


def test_what_adds_is_vermillion_what_takes_is_blue_and_nothing_is_gray():
    shown = overlay(GRAY, np.array([[1.0, 0.0], [0.0, -0.5]]), 1.0)
    corners = {"adds": shown[0, 0], "none": shown[0, -1], "takes": shown[-1, -1]}
    assert corners["none"].max() - corners["none"].min() == 0
    under = corners["none"].astype(float)
    np.testing.assert_allclose(corners["adds"], (1 - STRONGEST) * under + STRONGEST * np.array(ADDS), atol=1)
    half = STRONGEST / 2  # as half as strong
    np.testing.assert_allclose(corners["takes"], (1 - half) * under + half * np.array(TAKES), atol=1)
    assert not np.array_equal(overlay(GRAY, np.zeros((2, 1)), 0.0), GRAY)  # nothing at all: pale, and no division
    assert shown.shape == GRAY.shape


def test_both_images_of_a_pair_have_one_scale():
    query, gallery = np.zeros((2, 1, 2), np.float32), np.zeros((2, 1, 2), np.float32)
    query[0, 0], gallery[:, 0, 0] = (4, 0), 4
    on_query, on_gallery, *_ = overlays(GRAY, GRAY, pixel_parts(query, gallery))
    # The one pixel of the query carries what the gallery's two share.
    assert nearer(on_query[0, 0], ADDS) < nearer(on_gallery[0, 0], ADDS)
    np.testing.assert_array_equal(on_gallery[0, 0], on_gallery[-1, 0])
    assert on_query[-1, 0].tolist() == overlay(GRAY, np.zeros((1, 1)), 1.0)[0, 0].tolist()


def test_the_figure_names_files_and_sums(tmp_path):
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (2, 64, 32, 3), np.uint8)
    features = random.normal(1, 1, (2, 4, 2, 8))
    parts = pixel_parts(*features)
    names = "a/$x_1.jpg", "a_very_long_name_of_a_file_of_a_camera.jpg"
    pairs = [Pair(*pictures, parts, "best: rank 1", *names, right) for right in (True, False)]
    figure = alike(pairs, "What they have in common")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("best: rank 1") == 2
    assert texts.count(f"adds up to {parts.similarity:.3g}") == 4
    assert f"{parts.apart_query.sum():.3g} of {parts.distance**2:.3g}" in texts
    assert r"\$x_1.jpg" in texts
    assert [t[0] for t in texts if "…" in t] == ["✓", "✗"]
    assert len(axes.images) == len(axes.patches) == 12
    np.testing.assert_array_equal(axes.images[1].get_array(), pictures[1])
    save(figure, tmp_path / "alike.png")  # warns, so fails, if a mark has no glyph
    with Image.open(tmp_path / "alike.png") as image:
        assert image.size[0] == 900
    with pytest.raises(ValueError, match="no pair"):
        alike([], "nothing")
