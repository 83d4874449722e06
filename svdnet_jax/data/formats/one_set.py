"""Test images that are queries and gallery at once, without cameras: each of them gets a camera of its own.

The protocol's rule about cameras then leaves a query's own image out of its ranking and nothing else (leave-self-out),
in training, evaluation, reports and search alike. Loaders of data without cameras do the same in other toolkits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from svdnet_jax.data.index import SPLITS, ImageRecord

Splits = Mapping[str, Sequence[ImageRecord]]


def is_one_set(splits: Splits) -> bool:
    """Returns whether some image is query and gallery."""
    return bool({crop.path for crop in splits["query"]} & {crop.path for crop in splits["gallery"]})


def with_own_cameras(splits: Splits) -> tuple[dict[str, tuple[ImageRecord, ...]], str]:
    """Returns the splits with a camera for each image, and what to say of it: how many queries that leaves."""
    paths = sorted({crop.path for crops in splits.values() for crop in crops})
    camera = {path: number for number, path in enumerate(paths, start=1)}
    cameras = {split: tuple(crop._replace(camera=camera[crop.path]) for crop in splits[split]) for split in SPLITS}
    query, gallery = cameras["query"], cameras["gallery"]
    people, both = Counter(crop.pid for crop in gallery), {crop.path for crop in gallery}
    left = sum(people[crop.pid] > (crop.path in both) for crop in query if crop.pid >= 0)
    note = (
        "query set and gallery are one and there are no cameras: a query's own image is left out of its ranking, and "
        f"nothing else (leave-self-out); {left} of {len(query)} queries have another image of their identity"
    )
    return cameras, note
