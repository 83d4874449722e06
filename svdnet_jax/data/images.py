"""Image files to pixels."""

import io
from pathlib import Path

from PIL import Image

from svdnet_jax.data.listing import Listing
from svdnet_jax.data.splits import DataError

RESIZE = Image.Resampling.BILINEAR


def header(file: Path | io.BytesIO, name: str) -> Image.Image:
    """The image with its size known and its pixels not yet decoded.

    Raises:
        DataError: It is no image; the message begins with ``name``.
    """
    try:
        return Image.open(file)
    except Exception as error:  # each of Pillow's decoders fails in its own way: OSError, SyntaxError, struct.error
        raise _undecodable(name, error) from error


def decode(file: Path | io.BytesIO, name: str) -> Image.Image:
    """The image in RGB, fully decoded.

    Raises:
        DataError: It cannot be decoded to its end; the message begins with ``name``.
    """
    with header(file, name) as image:
        try:
            return image.convert("RGB")
        except Exception as error:
            raise _undecodable(name, error) from error


def of_one_size(listing: Listing) -> bool:
    """Whether all images of a data set have one height and width.

    Raises:
        DataError: One is no image.
    """
    sizes = set()
    for crops in listing.splits.values():
        for crop in crops:
            with header(crop.path, str(crop.path)) as image:
                sizes.add(image.size)
            if len(sizes) > 1:
                return False
    return True


def _undecodable(name: str, error: Exception) -> DataError:
    # Pillow names the buffer, which says nothing to a reader.
    reason = "it is no image" if "cannot identify" in str(error) else error
    return DataError(f"{name}: cannot be decoded ({reason}); replace the file or take it away")
