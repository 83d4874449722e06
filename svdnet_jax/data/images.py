"""Decodes image files to RGB bytes, upright and in 8 bits, or refuses them.

Pillow's ``convert("RGB")`` says nothing where it has to guess. Here each kind of file is decided. Read are

- RGB, gray, black and white, palettes, YCbCr; what ICC profiles say of colors is not applied, as in other toolkits,
- pictures that are stored turned or mirrored, upright as their EXIF orientation says,
- gray with 16 bits as v * 255 / 65535, rounded (Pillow clips at 255); colors with 16 bits by their upper 8, as Pillow
  does, which is at most 1 beside it,
- CMYK by Pillow's plain formula, without a color profile,
- alpha channels and palettes with transparency where every pixel is opaque,
- the photograph of a multi-picture JPEG (MPO; the others are previews or depth).

Refused are pixels that let through what is behind them, as nobody says what that is; animations and files of several
pages, as nobody says which picture is meant; and numbers whose black and white are not known (32 or 12 bits, signed).
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from svdnet_jax.data.index import DatasetIndex
from svdnet_jax.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
"""What Pillow may open, whatever a file is called: others start programs (EPS goes to Ghostscript). An MPO opens as
JPEG."""
_PLAIN = ("RGB", "L", "1", "P", "CMYK", "YCbCr", "RGBX")
_ALPHA = ("RGBA", "LA", "PA", "RGBa")
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
_BITS, _PHOTOMETRIC, _BLACK_IS_ZERO = 258, 262, 1  # of TIFF

TURNED = "turned upright as their EXIF orientation says"
SIXTEEN = "brought from gray of 16 bits to 8"
CMYK = "brought from CMYK to RGB without a color profile"


class Picture(NamedTuple):
    """A decoded image."""

    image: Image.Image
    """RGB, upright."""
    changed: tuple[str, ...]
    """What was done to it that somebody might want to know: `TURNED`, `SIXTEEN`, `CMYK`."""


def upright_size(file: Path | io.BytesIO, name: str) -> tuple[int, int]:
    """Returns width and height that `decode` gives, without decoding pixels.

    Raises:
        DataError: It is no image; the message begins with ``name``.
    """
    with _opened(file, name) as image:
        try:
            # Pillow has turned the size of a TIFF already.
            sideways = image.format != "TIFF" and _orientation(image) in _SIDEWAYS
        except Exception as error:
            raise _undecodable(name, error) from error
        return (image.height, image.width) if sideways else image.size


def decode(file: Path | io.BytesIO, name: str) -> Image.Image:
    """Returns the image in RGB, fully decoded and upright.

    Raises:
        DataError: It cannot be decoded to its end, or it is of a kind that is refused; the message begins with
            ``name``.
    """
    return read_picture(file, name).image


def read_picture(file: Path | io.BytesIO, name: str) -> Picture:
    """Returns the image as `decode` does, with what was changed in it.

    Raises:
        DataError: Likewise.
    """
    with _opened(file, name) as image:
        try:
            frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
            refusal = _why_not(image, frames)
            if not refusal:
                turned, sixteen = _orientation(image) in range(2, 9), _is_sixteen(image)
                image.load()
                refusal = _see_through(image)
            if not refusal:
                pixels = ImageOps.exif_transpose(image) if turned else image
                converted = _gray_of_sixteen(pixels) if sixteen else pixels.convert("RGB")
        except Exception as error:  # each of Pillow's decoders fails in its own way: OSError, SyntaxError, struct.error
            raise _undecodable(name, error) from error
    if refusal:
        raise DataError(f"{name}: {refusal}")
    changes = {TURNED: turned, SIXTEEN: sixteen, CMYK: image.mode == "CMYK"}
    return Picture(converted, tuple(change for change, made in changes.items() if made))


def of_one_size(listing: DatasetIndex) -> bool:
    """Returns whether all images of a data set have one height and width.

    Raises:
        DataError: One is no image.
    """
    sizes = set()
    for crops in listing.splits.values():
        for crop in crops:
            sizes.add(upright_size(crop.path, str(crop.path)))
            if len(sizes) > 1:
                return False
    return True


def _opened(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except Exception as error:
        raise _undecodable(name, error) from error


def _orientation(image: Image.Image) -> int:
    """Returns how the picture is stored: 1 upright, 2 to 8 turned or mirrored."""
    # Asking Pillow costs as much as opening the file; JPEG's metadata come before its pixels, so none are there.
    if image.format == "JPEG" and not {"exif", "xmp"} & image.info.keys():
        return 1
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _is_sixteen(image: Image.Image) -> bool:
    # Older Pillows give PNG's 16 bits as the mode I; TIFF may hold 12 bits or white as 0 in the same mode.
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return image.mode in _SIXTEEN and (*tags.get(_BITS, ()), tags.get(_PHOTOMETRIC)) == (16, _BLACK_IS_ZERO)
    return image.format in ("PNG", "PPM") and image.mode in (*_SIXTEEN, "I")


def _why_not(image: Image.Image, frames: int) -> str:
    """Returns why such a file is refused, as far as its header says; empty if it is not."""
    if frames > 1:
        return (
            f"holds {frames} pictures (an animation, or several pages), and which one is meant is not known; save that "
            "one as a file of its own"
        )
    if image.mode in (*_PLAIN, *_ALPHA) or _is_sixteen(image):
        return ""
    return (
        f"is of the kind {image.mode}, {image.format}, whose black and white are not known; save it as RGB or gray of "
        "8 bits, or as PNG of 16"
    )


def _see_through(image: Image.Image) -> str:
    """Returns why its transparency is refused; empty if there is none."""
    if image.mode in _SIXTEEN and (key := image.info.get("transparency")) is not None:
        hidden = int((np.asarray(image) == key).sum())  # Pillow does not convert it with its alpha
    elif image.mode in _ALPHA or "transparency" in image.info:
        hidden = int((np.asarray(image.convert("RGBA").getchannel("A")) < 255).sum())
    else:
        hidden = 0
    return (
        f"lets through what is behind it in {hidden} of {image.width * image.height} pixels, and nobody says what that "
        "is; put it on a background (ImageMagick: magick mogrify -background black -alpha remove FILE)"
        if hidden
        else ""
    )


def _gray_of_sixteen(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")


def _undecodable(name: str, error: Exception) -> DataError:
    # Pillow names the buffer, which says nothing to a reader.
    reason = "it is no image" if "cannot identify" in str(error) else error
    return DataError(f"{name}: cannot be decoded ({reason}); replace the file or take it away")
