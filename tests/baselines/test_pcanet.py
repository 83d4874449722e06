"""PCANet against a slow reference that follows the paper patch by patch, and its bounds on memory."""

import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svdnet_jax.baselines import pcanet
from svdnet_jax.baselines.pcanet import PCANet, Settings, dimension, features, fit
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate

pytestmark = pytest.mark.unoptimized

# 0.5 of a block of 5 is 2.5 pixels, which Matlab rounds to 3.
SMALL = Settings(patches=(3, 5), filters=(3, 4), block=(5, 4), overlap=0.5)


def pictures(n, height=14, width=11, channels=3, seed=0):
    """Noise on gradients: correlated neighbours and channels, nothing flat."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / rng.uniform(1, 4) + x / rng.uniform(1, 4) + rng.uniform(0, 6)) for _ in range(n)]
    scene = np.stack(waves)[..., None] * rng.uniform(20, 60, (n, 1, 1, channels))
    return np.clip(128 + scene + rng.normal(size=(n, height, width, channels)) * 15, 0, 255).astype(np.uint8)


def slow_patch(image, y, x, k):
    """The patch around a pixel, zeros outside of the image, as one vector (row, column, channel)."""
    patch = np.zeros((k, k, image.shape[2]))
    for i in range(k):
        for j in range(k):
            row, column = y + i - k // 2, x + j - k // 2
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                patch[i, j] = image[row, column]
    for channel in range(image.shape[2]):
        patch[:, :, channel] -= patch[:, :, channel].mean()
    return patch.ravel()


def slow_filters(images, k, count):
    margin = k // 2
    patches = [
        slow_patch(image, y, x, k)
        for image in images
        for y in range(margin, image.shape[0] - margin)
        for x in range(margin, image.shape[1] - margin)
    ]
    filters = np.linalg.svd(np.array(patches).T, full_matrices=False)[0][:, :count].T
    return [row if row[np.abs(row).argmax()] > 0 else -row for row in filters]


def slow_maps(image, filters, k):
    height, width, _ = image.shape
    return [
        np.array([[row @ slow_patch(image, y, x, k) for x in range(width)] for y in range(height)])[..., None]
        for row in filters
    ]


def slow_feature(image, first, second, settings):
    """An image's feature, and how near to zero a second-stage output came."""
    parts, margin = [], np.inf
    (height, width), bins = settings.block, 2 ** settings.filters[1]
    down, right = (int(np.floor((1 - settings.overlap) * side + 0.5)) for side in settings.block)
    for gray in slow_maps(image, first, settings.patches[0]):
        codes = np.zeros(image.shape[:2], int)
        for bit, response in enumerate(slow_maps(gray, second, settings.patches[1])):
            codes += (response[..., 0] > 0) * 2**bit
            margin = min(margin, np.abs(response).min())
        for y in range(0, image.shape[0] - height + 1, down):
            for x in range(0, image.shape[1] - width + 1, right):
                block = codes[y : y + height, x : x + width].ravel().tolist()
                parts += [block.count(code) / len(block) for code in range(bins)]
    return parts, margin


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_whole_pipeline_equals_the_slow_reference(channels):
    images = pictures(4, channels=channels)
    wide = images.astype(np.float64)
    first = slow_filters(wide, 3, 3)
    maps = [gray for image in wide for gray in slow_maps(image, first, 3)]
    second = slow_filters(maps, 5, 4)
    net = fit(images, SMALL, batch_size=3)
    # Covariances are sums of float32 products, and eigenvectors magnify their error by the inverse of gaps.
    np.testing.assert_allclose(net.first.reshape(-1, 3).T, first, atol=2e-5)
    np.testing.assert_allclose(net.second.reshape(-1, 4).T, second, atol=2e-5)
    found = features(net, images, batch_size=3)
    expected, margins = zip(*(slow_feature(image, first, second, SMALL) for image in wide), strict=True)
    # No output is so near to zero that float32 could see the other sign: then histograms are equal.
    assert min(margins) > 2e-3
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found.dtype == np.float32
    assert found.shape == (4, dimension(SMALL, 14, 11))


@pytest.mark.parametrize("filters", [(3, 4), (24, 24 - 16)])
def test_filters_are_orthonormal_and_blind_to_brightness(filters):
    net = fit(pictures(6), dataclasses.replace(SMALL, filters=filters))
    for bank, count in zip((net.first, net.second), filters, strict=True):
        rows = np.asarray(bank, np.float64).reshape(-1, count)
        np.testing.assert_allclose(rows.T @ rows, np.eye(count), atol=1e-6)
        np.testing.assert_allclose(np.asarray(bank, np.float64).sum(axis=(0, 1)), 0, atol=1e-6)


def test_filters_come_in_the_order_of_what_they_explain():
    net = fit(pictures(6), SMALL)
    wide = pictures(6).astype(np.float64)
    patches = np.array([slow_patch(image, y, x, 3) for image in wide for y in range(1, 13) for x in range(1, 10)])
    explained = ((patches @ np.asarray(net.first, np.float64).reshape(-1, 3)) ** 2).sum(axis=0)
    assert (np.diff(explained) < 0).all()


def test_contrast_and_brightness_do_not_matter():
    images = pictures(5) // 3
    net = fit(images, SMALL)
    np.testing.assert_array_equal(fit(images + 90, SMALL).first, net.first)
    # Twice the pixels are twice the outputs, in float32 too: no bit changes.
    np.testing.assert_array_equal(features(net, 2 * images), features(net, images))


@pytest.mark.parametrize("shade", [0, 7, 200, 255])
def test_flat_regions_give_the_code_zero(shade):
    """Not the signs of rounding errors."""
    net = fit(pictures(5), dataclasses.replace(SMALL, block=(4, 4), overlap=0.0))
    flat = np.full((1, 20, 20, 3), shade, np.uint8)
    blocks = features(net, flat).reshape(3, 5, 5, 16)
    inside = blocks if shade == 0 else blocks[:, 1:4, 1:4]  # The border of zeros is seen three pixels far.
    assert (inside[..., 0] == 1).all()
    assert (inside[..., 1:] == 0).all()


def test_batches_do_not_matter():
    images = pictures(7)
    net = fit(images, SMALL, batch_size=7)
    other = fit(images, SMALL, batch_size=4)
    np.testing.assert_allclose(other.first, net.first, atol=2e-5)
    np.testing.assert_allclose(other.second, net.second, atol=2e-5)
    whole = features(net, images, batch_size=7)
    for size in (2, 50):
        np.testing.assert_array_equal(features(net, images, batch_size=size), whole)
    assert features(net, images[:0]).shape == (0, whole.shape[1])


def test_every_block_is_a_distribution():
    images = pictures(3)
    net = fit(images, SMALL)
    shares = features(net, images).reshape(3, -1, 16)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-6)
    rooted = net._replace(settings=dataclasses.replace(SMALL, root=True))
    np.testing.assert_allclose(features(rooted, images).reshape(3, -1, 16) ** 2, shares, atol=1e-7)


def test_signs_of_eigenvectors_do_not_change_the_ranking():
    images = pictures(6)
    net = fit(images, SMALL)
    flipped = net._replace(
        first=net.first * jnp.array([[[[-1.0, 1, 1]]]]), second=net.second * jnp.array([[[[1.0, -1, 1, -1]]]])
    )

    def distances(net):
        found = features(net, images).astype(np.float64)
        return np.linalg.norm(found[:, None] - found[None], axis=-1)

    np.testing.assert_allclose(distances(flipped), distances(net), atol=1e-6)


def test_dimension_by_hand():
    assert dimension(Settings(), 64, 32) == 8 * 2048
    assert dimension(Settings(), 128, 64) == 32 * 2048
    assert dimension(SMALL, 14, 11) == (4 * 4) * 3 * 16


def test_a_net_is_a_pytree_of_its_filters():
    net = fit(pictures(3), SMALL)
    first, second = jax.tree.leaves(net)
    assert first is net.first
    assert second is net.second
    doubled = jax.jit(lambda net: jax.tree.map(lambda leaf: 2 * leaf, net))(net)
    assert isinstance(doubled, PCANet)
    assert doubled.settings == net.settings


class Watched(np.ndarray):
    """Notes how many images are taken at a time."""

    taken: list[int]

    def __getitem__(self, key):
        part = super().__getitem__(key)
        if hasattr(self, "taken"):
            self.taken.append(len(part))
        return np.asarray(part)


def test_memory_is_that_of_a_batch():
    """3000 images at once would be 3000 x 14 x 11 patches of 27 numbers, 50 MB, of which nothing is ever made."""
    images = np.tile(pictures(30), (100, 1, 1, 1)).view(Watched)
    images.taken = []
    small = dataclasses.replace(SMALL, filters=(2, 2))
    fit(np.asarray(images[:50]), small, batch_size=50)
    compiled = [function._cache_size() for function in (pcanet._scatter, pcanet._scatter_of_maps)]
    tracemalloc.start()
    net = fit(images, small, batch_size=50)
    found = features(net, images, batch_size=50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(images.taken[1:]) == 50
    assert len(images.taken) == 1 + 3 * 60
    assert peak < found.nbytes + 2e6
    assert [function._cache_size() for function in (pcanet._scatter, pcanet._scatter_of_maps)] == compiled
    device = pcanet._histograms.lower(net, np.asarray(images[:50])).compile().memory_analysis()
    assert device.temp_size_in_bytes < 3.5 * 4 * 50 * 14 * 11 * 27


def test_retrieval_by_the_protocol_of_any_embedding(dataset):
    settings = Settings(filters=(4, 4), block=(8, 8))
    net = fit(dataset.train.images[:, ::2, ::2], settings)
    query, gallery = (
        Embeddings(features(net, split.images[:, ::2, ::2]), split.pids, split.cameras, split.names)
        for split in (dataset.query, dataset.gallery)
    )
    report = evaluate(query, gallery)
    order = np.random.default_rng(0).permutation(len(gallery.pids))
    chance = evaluate(query, dataclasses.replace(gallery, features=gallery.features[order]))
    assert report.mAP > 1.5 * chance.mAP
    assert report.junk > 0


@pytest.mark.usefixtures("as_user")
def test_settings_that_cannot_work_are_refused():
    for wrong, message in [
        ({"patches": (4, 5)}, r"odd and at least 3; found \(4, 5\)"),
        ({"patches": (5, 1)}, "odd and at least 3"),
        ({"filters": (0, 8)}, r"found \(0, 8\)"),
        ({"filters": (8, 17)}, "at most 16 in the second"),
        ({"block": (0, 4)}, "block: height and width"),
        ({"overlap": 1.0}, "below 1; found 1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            Settings(**wrong)


@pytest.mark.usefixtures("as_user")
def test_images_that_cannot_be_used_are_refused():
    images = pictures(3)
    net = fit(images, SMALL)
    for function in (lambda images: fit(images, SMALL), lambda images: features(net, images)):
        with pytest.raises(ValueError, match=r"uint8 images \(N, H, W, C\), found float64 of shape \(3, 14, 11, 3\)"):
            function(images.astype(np.float64))
        with pytest.raises(ValueError, match="uint8 images"):
            function(images[0])
    with pytest.raises(ValueError, match="no images to learn"):
        fit(images[:0], SMALL)
    with pytest.raises(ValueError, match="5 x 5 do not fit in images 4 x 11"):
        fit(images[:, :4], SMALL)
    with pytest.raises(ValueError, match="first stage's patches of 3 x 3 pixels and 3 channels vary in 0 directions"):
        fit(np.full_like(images, 9), SMALL)
    with pytest.raises(ValueError, match="vary in 24 directions, too few for 25 filters"):
        fit(images, dataclasses.replace(SMALL, filters=(25, 4)))
    with pytest.raises(ValueError, match="images of 3 channels; found 1"):
        features(net, images[..., :1])
    with pytest.raises(ValueError, match="blocks of 5 x 4 do not fit in images 14 x 3"):
        features(net, images[:, :, :3])
    with pytest.raises(ValueError, match="batch_size must be at least 1; found 0"):
        features(net, images, batch_size=0)
