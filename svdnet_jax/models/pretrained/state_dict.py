"""Finds the backbone in a state dict: one prefix is taken off every name, heads are left out by theirs. Names only.

Toolkits for re-identification keep the backbone as a part of their model, and wrappers put words of their own in front:
``backbone.`` and ``heads.`` (fast-reid), ``base.`` (strong baseline, TransReID), ``model.`` (layumi), ``module.``
(DataParallel), ``_orig_mod.`` (torch.compile), any of them within any other.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from svdnet_jax.errors import WeightsError
from svdnet_jax.models.pretrained.convert import some
from svdnet_jax.models.pretrained.readers import AVERAGED

Triple = tuple[float, float, float]

HEAD = re.compile(
    r"(heads?|fc|classifiers?|bottleneck|bnneck|neck|feat_bn|embedding|projector|predictor|criterion|center_loss"
    r"|loss|loss_fn|losses|n_averaged|pixel_(mean|std))_?\d*"
)
"""Modules behind the feature, and what losses and averages keep beside the network."""
# How the backbones begin: a ResNet and an OSNet.
BEGINNINGS = (("conv1.weight", "layer1."), ("conv1.conv.weight", "conv2."))


class Backbone(NamedTuple):
    """The backbone's part of a state dict."""

    arrays: dict[str, np.ndarray]
    """By the names that the backbone alone would have."""
    layouts: tuple[str, ...]
    """Graphs of ResNets in which it may have been trained, best first."""
    pixels: tuple[Triple, Triple] | None
    """Mean and std of RGB in [0, 255], where the file says them."""
    note: str
    """What was taken off the names and left out; empty: nothing."""


def find_backbone(arrays: Mapping[str, np.ndarray]) -> Backbone:
    """Returns the backbone in a state dict; all of it where there is none that is known.

    Args:
        arrays: The state dict.

    Raises:
        WeightsError: A vision transformer, several networks of which none is an average, or weights beside the
            backbone whose names are no head's.
    """
    if any(name.endswith("cls_token") for name in arrays):
        raise WeightsError("holds a vision transformer (cls_token), whose graph is none of ours; take a CNN's weights")
    prefixes = _prefixes(arrays)
    if not prefixes:
        return Backbone(dict(arrays), ("torchvision",), None, "")
    prefix = _choose(prefixes)
    inside: dict[str, np.ndarray] = {}
    left: Counter[str] = Counter()
    unknown: list[str] = []
    for name, array in arrays.items():
        # Of several networks one may have no prefix, as all names begin with it; the longest one has the name.
        network = max((each for each in prefixes if name.startswith(each)), key=len, default=None)
        head, rest = _head(name, prefixes), name.removeprefix(prefix)
        if network == prefix and (head is None or rest in ("fc.weight", "fc.bias")):
            inside[rest] = array
        elif head is not None or network is not None:
            left[head or f"{network}* (another network)"] += 1
        else:
            unknown.append(name)
    if unknown:
        raise WeightsError(
            f"holds {len(unknown)} weights beside the backbone {prefix}* that are no head's: {some(unknown)}; save "
            "the backbone's state dict alone"
        )
    return Backbone(inside, _layouts(prefix, arrays), _pixels(arrays), _note(prefix, left))


def _prefixes(names: Collection[str]) -> list[str]:
    """Returns what stands before the names of each backbone."""
    found = []
    for stem, stage in BEGINNINGS:
        starts = (name.removesuffix(stem) for name in names if name == stem or name.endswith(f".{stem}"))
        found += [start for start in starts if any(name.startswith(f"{start}{stage}") for name in names)]
    return found


def _choose(prefixes: list[str]) -> str:
    """Returns the prefix of the one network to read: the average, where there are several.

    Raises:
        WeightsError: None of them, or several, are averages.
    """
    averaged = [prefix for prefix in prefixes if set(prefix.split(".")) & set(AVERAGED)]
    chosen = prefixes if len(prefixes) == 1 else averaged
    if len(chosen) != 1:
        raise WeightsError(
            f"holds {len(prefixes)} networks ({some(f'{prefix}*' for prefix in prefixes)}); save the state dict of "
            "the one that is meant"
        )
    return chosen[0]


def _head(name: str, prefixes: Collection[str]) -> str | None:
    """Returns a name up to the module that is a head, beside or at the end of a backbone; None if none is."""
    for place in sorted({"", *prefixes, *map(_outer, prefixes)}, key=len, reverse=True):
        module = name.removeprefix(place).partition(".")[0]
        if name.startswith(place) and HEAD.fullmatch(module):
            return place + module
    return None


def _outer(prefix: str) -> str:
    """Returns the prefix of the module that the backbone is a part of."""
    parts = prefix.split(".")[:-2]
    return "".join(f"{part}." for part in parts)


def _layouts(prefix: str, names: Collection[str]) -> tuple[str, ...]:
    """Returns the graphs of a ResNet that a toolkit's names speak of."""
    outer, last = _outer(prefix), prefix.removesuffix(".").rpartition(".")[2]
    if last == "backbone" and any(name.startswith((f"{outer}heads.", f"{outer}pixel_mean")) for name in names):
        return ("fastreid",)
    # Their ResNets with IBN have torchvision's graph.
    if last == "base" and f"{prefix}layer1.0.bn1.IN.weight" not in names:
        return ("strongbaseline", "transreid")
    return ("torchvision",)


def _pixels(arrays: Mapping[str, np.ndarray]) -> tuple[Triple, Triple] | None:
    """Returns mean and std of pixels as fast-reid before 1.0 stored them.

    Raises:
        WeightsError: They are not of three channels.
    """
    found = []
    for kind in ("pixel_mean", "pixel_std"):
        held = [array for name, array in arrays.items() if name.rpartition(".")[2] == kind]
        if len(held) != 1:
            return None
        if held[0].size != 3:
            raise WeightsError(f"{kind} has shape {held[0].shape}; expected one number for each of R, G and B")
        r, g, b = (float(number) for number in held[0].ravel())
        found.append((r, g, b))
    return found[0], found[1]


def _note(prefix: str, left: Mapping[str, int]) -> str:
    parts = [f"{prefix!r} taken off the names"] if prefix else []
    if left:
        parts.append("left out: " + ", ".join(f"{name} ({count})" for name, count in sorted(left.items())))
    return "; ".join(parts)
