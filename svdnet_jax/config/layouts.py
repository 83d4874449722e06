"""The names of the layouts that data sets can have on disk; `svdnet_jax.data.formats` reads them."""

from typing import Literal

Layout = Literal[
    "auto",
    "market1501",
    "market1501-500k",
    "dukemtmc",
    "occluded-duke",
    "veri776",
    "msmt17",
    "msmt17-folders",
    "last",
    "vehicleid-800",
    "vehicleid-1600",
    "vehicleid-2400",
    "cuhk03-labelled",
    "cuhk03-detected",
    "manifest",
    "identity-folders",
]

ListSplit = Literal["train", "query", "gallery", "query+gallery"]
"""The splits that all images of a list may be of."""
