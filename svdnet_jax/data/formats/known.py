"""The published data sets, as data: their folders, names and counts.

To add one, add ten lines here and its name to `config.layouts.Layout`. Counts are those of the data sets' papers and
read-me files. DukeMTMC-reID was withdrawn by its owners; its layout is read for those who hold it lawfully, and no copy
is linked to. MSMT17: Wei et al., CVPR 2018. VeRi-776: Liu et al., ECCV 2016. Occluded-Duke: Miao et al., ICCV 2019.
LaST: Shu et al., 2022. VehicleID: Liu et al., CVPR 2016; counts of its lists.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from svdnet_jax.data.formats.lists import ListLayout
from svdnet_jax.data.formats.market_style import FOLDERS, FilenamePattern, FolderLayout
from svdnet_jax.data.index import SPLITS


def _form(pattern: str, example: str) -> FilenamePattern:
    return FilenamePattern(re.compile(pattern, re.IGNORECASE), example)


def published(
    images: tuple[int, int, int], identities: tuple[int, int, int], cameras: int | None = None, junk: int = 0
) -> Mapping[str, int]:
    """Returns counts by the names of `index.counts`: images and identities of train, query and gallery.

    Args:
        images: Of each split; 0 where nobody says it.
        identities: Likewise.
        cameras: None where there are none.
        junk: Of the gallery.
    """
    known = {f"{split} images": number for split, number in zip(SPLITS, images, strict=True)}
    known |= {f"{split} identities": number for split, number in zip(SPLITS, identities, strict=True)}
    known |= {"gallery images without junk": max(images[2] - junk, 0), "cameras": cameras or 0}
    return MappingProxyType({what: number for what, number in known.items() if number})


# The release itself holds a few names that end in .jpg.jpg.
MARKET = _form(
    r"^(?P<pid>-1|\d{4,})_c(?P<camera>\d+)s\d+_\d+_\d+(\.(jpg|jpeg|png))+$",
    "0002_c1s1_000451_03.jpg",
)
DUKE = _form(r"^(?P<pid>\d{4,})_c(?P<camera>\d+)_f\d+\.(jpg|jpeg|png)$", "0001_c2_f0046182.jpg")

IN_FOLDERS: Mapping[str, FolderLayout] = MappingProxyType(
    {
        "market1501": FolderLayout(MARKET, published((12936, 3368, 19732), (751, 750, 750), cameras=6, junk=3819)),
        # In torchreid's and fast-reid's place. Nobody says how many there are to the last one: "500k".
        "market1501-500k": FolderLayout(
            MARKET, published((12936, 3368, 0), (751, 750, 750), cameras=6), distractors="images"
        ),
        # 408 people of the gallery are in no query: its distractors, with numbers of their own.
        "dukemtmc": FolderLayout(DUKE, published((16522, 2228, 17661), (702, 702, 1110), cameras=8)),
        "occluded-duke": FolderLayout(
            DUKE,
            published((15618, 2210, 17661), (702, 519, 1110), cameras=8),
            called=("Occluded_Duke", "Occluded-DukeMTMC-reID", "Occluded-DukeMTMC"),
        ),
        "veri776": FolderLayout(
            _form(r"^(?P<pid>\d{4})_c(?P<camera>\d{3})_\d+_\d+\.jpg$", "0002_c002_00030600_0.jpg"),
            published((37778, 1678, 11579), (576, 200, 200), cameras=20),
            folders=MappingProxyType({"train": "image_train", "query": "image_query", "gallery": "image_test"}),
        ),
        "msmt17-folders": FolderLayout(
            _form(r"^(?P<pid>\d{4})_c(?P<camera>\d+)_\d{4,}\.jpg$", "0781_c11_0015.jpg"),
            published((32621, 11659, 82161), (1041, 3060, 3060), cameras=15),
            from_zero=True,
        ),
        # Of a film's scenes: no cameras. Its validation set (val) is not read.
        "last": FolderLayout(
            _form(r"^(?P<pid>\d{6})_\S+\.jpg$", "000001_000001_s_001.jpg"),
            published((71248, 10176, 125353), (5000, 0, 0)),
            folders=MappingProxyType({"train": "train/*", "query": "test/query", "gallery": "test/gallery/*"}),
            from_zero=True,
        ),
    }
)

VEHICLEID = MappingProxyType({800: 7332, 1600: 12995, 2400: 20038})
"""Test images by the number of vehicles, of which one image each is the gallery and the others are queries."""


def _vehicleid(vehicles: int, images: int) -> ListLayout:
    test = (f"train_test_split/test_list_{vehicles}.txt",)
    return ListLayout(
        lists=MappingProxyType({"train": ("train_test_split/train_list.txt",), "query": test, "gallery": test}),
        images=(MappingProxyType(dict.fromkeys(SPLITS, "image")),),
        line=FilenamePattern(re.compile(r"(?P<path>[^/\s]+) +(?P<pid>\d+)"), "0000001 1"),
        published=published((113346, images, images), (13164, vehicles, vehicles)),
        ending=".jpg",
    )


IN_LISTS: Mapping[str, ListLayout] = MappingProxyType(
    {
        # The validation list is part of training, as in the published results; version 2 has the faces blurred.
        "msmt17": ListLayout(
            lists=MappingProxyType(
                {
                    "train": ("list_train.txt", "list_val.txt"),
                    "query": ("list_query.txt",),
                    "gallery": ("list_gallery.txt",),
                }
            ),
            images=tuple(
                MappingProxyType({"train": train, "query": test, "gallery": test})
                for train, test in (("train", "test"), ("mask_train_v2", "mask_test_v2"))
            ),
            line=FilenamePattern(
                re.compile(r"(?P<path>\S*?[^/\s_]+_[^/\s_]+_(?P<camera>\d+)_[^/\s]+) +(?P<pid>\d+)"),
                "0000/0000_000_01_0303morning_0015_0.jpg 0",
            ),
            published=published((32621, 11659, 82161), (1041, 3060, 3060), cameras=15),
            from_zero=True,
        ),
        **{f"vehicleid-{vehicles}": _vehicleid(vehicles, images) for vehicles, images in VEHICLEID.items()},
    }
)

# Of the release in Market-1501's folders.
CUHK03 = _form(r"^(?P<pid>\d{4,})_c(?P<camera>\d+)_\d+\.(png|jpg)$", "0001_c1_1.png")
CUHK03_IN_FOLDERS: Mapping[str, FolderLayout] = MappingProxyType(
    {
        kind: FolderLayout(CUHK03, published(images, (767, 700, 700), cameras=2), FOLDERS)
        for kind, images in (("labeled", (7368, 1400, 5328)), ("detected", (7365, 1400, 5332)))
    }
)
