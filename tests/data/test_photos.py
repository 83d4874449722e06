"""Real ImageNet weights recognise photographs, and give Keras' own numbers: ``pytest -m slow --weights PATH``.

The photographs come with the packages scikit-learn and scikit-image.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from jax.scipy.ndimage import map_coordinates
from PIL import Image

from svdnet_jax.models.pretrained.load import load_pretrained
from svdnet_jax.models.resnet import resnet50

pytestmark = pytest.mark.slow

CLASSES = {"palace": 698, "bell_cote": 442, "monastery": 663, "Egyptian_cat": 285, "espresso": 967}
CLASSES |= {"vase": 883, "cup": 968, "daisy": 985}
# Keras' first ResNet-50, resnet50_weights_tf_dim_ordering_tf_kernels.h5, in whatever file.
KERAS = "64d505e5"


@pytest.fixture(scope="module")
def weights(request):
    path = request.config.getoption("--weights", default=None)
    if path is None:
        pytest.skip("needs --weights PATH, a ResNet-50 trained on ImageNet")
    return load_pretrained(str(path))


def photo(name):
    if name in ("china", "flower"):
        return pytest.importorskip("sklearn.datasets").load_sample_image(f"{name}.jpg")
    folder = Path(pytest.importorskip("skimage").__file__).parent / "data"
    return np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))


def center(image):
    """The usual test image: 256 pixels on the shorter side, and of that the middle."""
    height, width = image.shape[:2]
    scale = 256 / min(height, width)
    resized = Image.fromarray(image).resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    return np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32)


def box(image, top, left, bottom, right):
    """A part of the image at 224 points a side, corners on corners: ``tf.image.crop_and_resize``."""
    height, width = image.shape[:2]
    rows, columns = (np.linspace(a, b, 224) for a, b in zip((top, left), (bottom, right), strict=True))
    grid = jnp.meshgrid(rows * (height - 1), columns * (width - 1), indexing="ij")
    return np.stack(
        [map_coordinates(jnp.asarray(c, jnp.float32), grid, order=1) for c in np.moveaxis(image, -1, 0)], -1
    )


def probabilities(weights, images, layout):
    variables = {kind: unflatten_dict(getattr(weights, kind), sep="/") for kind in ("params", "batch_stats")}
    x = (np.stack(images) - np.float32(weights.mean)) / np.float32(weights.std)
    feature = resnet50(layout=layout).apply(variables, jnp.asarray(x), train=False).mean((1, 2))
    return np.asarray(jax.nn.softmax(feature @ weights.head["kernel"] + weights.head["bias"][None, :]))


@pytest.mark.parametrize("at", [0, 1])
def test_photographs_are_recognized(weights, at):
    if at >= len(weights.layouts):
        pytest.skip("weights with one layout")
    expected = {"china": "palace", "chelsea": "Egyptian_cat", "coffee": "espresso"}
    found = probabilities(weights, [center(photo(name)) for name in expected], weights.layouts[at])
    print("\n", weights.layouts[at], {name: float(p.max()) for name, p in zip(expected, found, strict=True)})
    assert found.argmax(1).tolist() == [CLASSES[name] for name in expected.values()]


@pytest.mark.parametrize(
    ("epsilon", "china", "flower"),
    [
        (1e-3, {"palace": 42.87, "bell_cote": 40.57, "monastery": 14.56}, {"vase": 46.83, "cup": 7.78, "daisy": 4.87}),
        (
            1.001e-5,
            {"palace": 43.39, "bell_cote": 43.07, "monastery": 11.70},
            {"vase": 53.96, "cup": 9.52, "daisy": 4.97},
        ),
    ],
)
def test_probabilities_are_those_that_keras_gives(weights, epsilon, china, flower):
    """Printed in the notebook of chapter 14 of Géron's "Hands-On Machine Learning" by two versions of TensorFlow.

    The numbers in the file stayed the same between the two, Keras' epsilon did not.
    """
    if weights.source.split()[-1] != KERAS:
        pytest.skip("not Keras' first ResNet-50")
    stats = {
        name: array + np.float32(epsilon - 1e-3) if name.endswith("/var") else array
        for name, array in weights.batch_stats.items()
    }
    images = [box(photo("china"), 0, 0.03, 1, 0.68), box(photo("flower"), 0.19, 0.26, 0.86, 0.7)]
    found = probabilities(weights._replace(batch_stats=stats), images, "keras")
    for expected, p in zip((china, flower), found, strict=True):
        ours = [100 * float(p[CLASSES[name]]) for name in expected]
        print("\n", epsilon, dict(zip(expected, ours, strict=True)))
        # Printed to 0.005; decoders of JPEG differ by a grey value here and there.
        np.testing.assert_allclose(ours, list(expected.values()), atol=0.03)
