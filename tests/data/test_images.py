"""What is made of an image file: right, or refused by its name with what to do. Nothing in between."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from svdnet_jax.data.images import CMYK, SIXTEEN, TURNED, decode, read_picture, upright_size
from svdnet_jax.errors import DataError

DRAWN = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
# How a picture has to be stored for its orientation to bring it upright: EXIF 2.32, tag 274.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[:, ::-1],
}


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(depth, kind, values, size=(1, 1), chunks=b""):
    """A PNG of one value, which no library had a hand in."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row = b"\0" + struct.pack(f">{len(values)}{'H' if depth == 16 else 'B'}", *values) * size[0]
    head = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(row * size[1])) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + (chunk(b"tRNS", chunks) if chunks else b"") + body


def tiff(order, bits, photometric, values, sample=1):
    """A TIFF of one row."""
    data = struct.pack(order + ("f" if sample == 3 else {16: "H", 32: "I"}[bits]) * len(values), *values)
    short = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, photometric), (277, 1), (278, 1), (339, sample)]
    tags = [(tag, 3, struct.pack(order + "HH", value, 0)) for tag, value in short]
    tags += [(tag, 4, struct.pack(order + "I", value)) for tag, value in ((273, 8), (279, len(data)))]
    table = b"".join(struct.pack(order + "HHI", tag, kind, 1) + value for tag, kind, value in sorted(tags))
    start = 8 + len(data) + len(data) % 2
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, start)
    return (head + data).ljust(start, b"\0") + struct.pack(order + "H", len(tags)) + table + bytes(4)


def pixels(content):
    return np.asarray(decode(io.BytesIO(content), "x"))


def refused(content):
    with pytest.raises(DataError) as caught:
        decode(io.BytesIO(content), "in/x.png")
    said = str(caught.value)
    assert said.startswith("in/x.png: ")
    return said


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_stored_turned_come_out_upright(form, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](DRAWN)))
    content = saved(stored, form, exif=exif, **({"lossless": True} if form == "WEBP" else {"quality": 95}))
    image, changed = read_picture(io.BytesIO(content), "x")
    assert (image.width, image.height) == (4, 6) == upright_size(io.BytesIO(content), "x")
    assert changed == ((TURNED,) if orientation > 1 else ())
    if form == "JPEG":
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(STORED[orientation](np.asarray(image)), expected)
    else:
        np.testing.assert_array_equal(np.asarray(image), DRAWN)


def test_an_orientation_after_the_pixels_of_a_png_counts_too():
    exif = Image.Exif()
    exif[274] = 6
    content = saved(Image.fromarray(DRAWN), exif=exif)
    start = content.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
    late = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    assert upright_size(io.BytesIO(late), "x") == decode(io.BytesIO(late), "x").size == (6, 4)


@given(st.integers(0, 65535))
def test_sixteen_bits_of_gray_become_eight(value):
    image, changed = read_picture(io.BytesIO(png(16, 0, [value])), "x")
    assert changed == (SIXTEEN,)
    assert np.asarray(image).ravel().tolist() == [round(value * 255 / 65535)] * 3


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bits_in_a_tiff_of_either_order(order):
    np.testing.assert_array_equal(pixels(tiff(order, 16, 1, [0, 30000, 65535]))[0, :, 0], [0, 117, 255])


def test_sixteen_bits_may_be_turned():
    exif = Image.Exif()
    exif[274] = 6
    image, changed = read_picture(io.BytesIO(saved(Image.fromarray(np.full((6, 4), 30000, np.uint16)), exif=exif)), "x")
    assert (image.size, image.getpixel((0, 0)), changed) == ((6, 4), (117, 117, 117), (TURNED, SIXTEEN))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(16, 2, [30000, 1000, 65535]), (117, 3, 255)),  # colors: the upper 8 bits
        (png(16, 6, [30000, 1000, 65535, 65535]), (117, 3, 255)),
        (png(16, 4, [30000, 65535]), (117, 117, 117)),
        (png(1, 0, [0x80]), (255, 255, 255)),
        (png(2, 0, [0x40]), (85, 85, 85)),
        (saved(Image.new("LA", (1, 1), (100, 255))), (100, 100, 100)),
        (saved(Image.new("RGBA", (1, 1), (1, 2, 3, 255))), (1, 2, 3)),
        (saved(Image.new("1", (1, 1), 1)), (255, 255, 255)),
        (saved(Image.new("RGB", (1, 1), (9, 8, 7)).quantize()), (9, 8, 7)),
        (saved(Image.new("RGB", (1, 1), (9, 8, 7)), "GIF"), (9, 8, 7)),
        (saved(Image.new("RGB", (1, 1), (9, 8, 7)), "TIFF"), (9, 8, 7)),
        (saved(Image.new("RGB", (1, 1), (9, 8, 7)), "BMP"), (9, 8, 7)),
        (saved(Image.new("RGB", (1, 1), (9, 8, 7)), transparency=(1, 1, 1)), (9, 8, 7)),  # a color that is not there
    ],
    ids=[
        "RGB-16",
        "RGBA-16",
        "LA-16",
        "1-bit",
        "2-bits",
        "LA",
        "RGBA",
        "one",
        "palette",
        "GIF",
        "TIFF",
        "BMP",
        "absent-color",
    ],
)
def test_kinds_that_are_read(content, expected):
    assert tuple(pixels(content)[0, 0]) == expected


def test_cmyk_of_a_jpeg_is_not_inverted_and_is_said():
    content = saved(Image.new("CMYK", (8, 8), (10, 200, 100, 0)), "JPEG", quality=100)
    image, changed = read_picture(io.BytesIO(content), "x")
    np.testing.assert_allclose(np.asarray(image)[0, 0], (245, 55, 155), atol=2)
    assert changed == (CMYK,)


def palette(**options):
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return saved(image, **options)


@pytest.mark.parametrize(
    "content",
    [
        saved(Image.new("RGBA", (2, 1), (1, 2, 3, 0))),
        saved(Image.new("RGBA", (2, 1), (1, 2, 3, 254))),
        saved(Image.new("RGBA", (2, 1), (1, 2, 3, 9)), "WEBP", lossless=True),
        saved(Image.new("LA", (2, 1), (100, 0))),
        palette(transparency=1),
        palette(form="GIF", transparency=1),
        saved(Image.new("RGB", (2, 1), (1, 2, 3)), transparency=(1, 2, 3)),
        saved(Image.new("L", (2, 1), 5), transparency=5),
        png(16, 0, [30000], (2, 1), chunks=struct.pack(">H", 30000)),
    ],
    ids=["RGBA", "RGBA-254", "WEBP", "LA", "palette", "GIF", "RGB-color", "L-color", "gray-16-color"],
)
def test_what_lets_the_background_through_is_refused(content):
    assert "lets through what is behind it in 2 of 2 pixels" in refused(content)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_pictures_none_is_chosen(form):
    first, *others = (Image.new("RGB", (4, 4), (60 * i + 30, 0, 0)) for i in range(3))
    content = saved(first, form, save_all=True, append_images=others)
    assert "holds 3 pictures (an animation, or several pages), and which one is meant" in refused(content)


def test_the_photograph_of_a_multi_picture_jpeg_is_read():
    photograph, preview = Image.new("RGB", (16, 8), (200, 10, 10)), Image.new("RGB", (8, 8))
    content = saved(photograph, "MPO", save_all=True, append_images=[preview])
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert pixels(content).shape == (8, 16, 3)


@pytest.mark.parametrize(
    "content",
    [
        tiff("<", 32, 1, [30000]),
        tiff("<", 32, 1, [0.5], sample=3),
        tiff("<", 16, 1, [30000], sample=2),
        tiff("<", 16, 0, [30000]),  # white is zero
        saved(Image.new("LAB", (2, 2)), "TIFF"),
    ],
    ids=["32-bits", "float", "signed", "white-is-zero", "LAB"],
)
def test_numbers_whose_black_and_white_are_not_known_are_refused(content):
    assert "whose black and white are not known; save it as RGB or gray of 8 bits" in refused(content)


def test_what_is_no_whole_image_is_refused():
    whole = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)), "JPEG")
    for content in (b"", b"no image", whole[:-300], png(8, 2, [1, 2, 3], (0, 4)), saved(Image.fromarray(DRAWN))[:-30]):
        assert "cannot be decoded (" in refused(content)
