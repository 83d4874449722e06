"""Pictures of what makes an image and one that it found alike, or sets them apart, by the network of an embedding."""

import io
from typing import Literal, cast

import numpy as np
from PIL import Image

from svdnet_jax.config.schema import input_size
from svdnet_jax.data.resizing import resize_image
from svdnet_jax.reporting.figures.alike import overlays
from svdnet_jax.retrieval.pixel_parts import pixel_parts
from svdnet_jax.runs.pictures import gallery_center
from svdnet_jax.web.answers import NotThere, source_of
from svdnet_jax.web.load import Served
from svdnet_jax.web.pictures import QUALITY, SIZE

What = Literal["alike", "apart"]
GAP = 6
"""White pixels between the two pictures."""


def alike_picture(served: Served, key: str, kind: str, row: int, found: int, what: str) -> bytes:
    """Returns two pictures side by side as JPEG: the image that is searched for, and the one that it found.

    Args:
        served: What there is.
        key: The embedding.
        kind: ``query`` or ``gallery``, where the first is.
        row: Its row there.
        found: Row of the other one in the gallery.
        what: ``alike`` or ``apart``.

    Raises:
        NotThere: No such embedding, image, or picture.
        ValueError: The weights of the embedding are not kept, or the network has no pixels to speak of.
        DataError: A picture cannot be shown.
    """
    source = source_of(served, key)
    if kind not in served.counts or not 0 <= row < served.counts[kind] or not 0 <= found < served.counts["gallery"]:
        raise NotThere("no such image")
    if what not in ("alike", "apart"):
        raise NotThere("there are pictures of what makes two images alike, and of what sets them apart")
    if not source.network:
        raise ValueError("the weights of this embedding are not kept, so nothing can be said of pixels")
    network, panel = served.networks[source.network](), source.panel()
    pictures = [served.pictures[kind](row), served.pictures["gallery"](found)]
    size = input_size(network.config.data)
    seen = np.stack([resize_image(np.asarray(picture), size) for picture in pictures])
    features = np.asarray(network.apply_pixelwise(seen)[source.kind])
    if features.shape[1] * features.shape[2] == 1:
        raise ValueError("the network's last feature map is one pixel, so it does not say where anything is")
    metric = panel.index.metric
    parts = pixel_parts(features[0], features[1], metric, gallery_center(panel.gallery, metric))
    for picture in pictures:
        picture.thumbnail(SIZE, Image.Resampling.LANCZOS)
    drawn = overlays(np.asarray(pictures[0]), np.asarray(pictures[1]), parts)
    return _side_by_side(drawn[:2] if cast(What, what) == "alike" else drawn[2:])


def _side_by_side(pictures: list[np.ndarray]) -> bytes:
    height = max(len(picture) for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + GAP * (len(pictures) - 1)
    both = Image.new("RGB", (width, height), "white")
    left = 0
    for picture in pictures:
        both.paste(Image.fromarray(picture), (left, (height - len(picture)) // 2))
        left += picture.shape[1] + GAP
    content = io.BytesIO()
    both.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()
