"""A trained network as it is exported: from pixels to one embedding."""

import dataclasses
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, cast

from jaxtyping import Array, Float, PyTree

from svdnet_jax.errors import ConfigError
from svdnet_jax.models.svdnet import Outputs, SVDNet

Kind = Literal["embedding", "pooled"]


class Network(NamedTuple):
    """A network at rest, and what its file gives."""

    model: SVDNet
    variables: Mapping[str, PyTree[Array]]
    """What the network is applied with."""
    size: tuple[int, int]
    """Height and width that it sees."""
    kind: Kind
    """The Eigenlayer's output or its input."""
    fingerprint: str
    """Of the network and this embedding."""

    def embed(self, pixels: Float[Array, "N H W 3"]) -> Float[Array, "N D"]:
        """Computes the embedding of images of the network's size, RGB in [0, 255]."""
        return getattr(cast(Outputs, self.model.apply(self.variables, pixels, train=False)), self.kind)

    def with_backbone(self, **settings: Any) -> "Network":
        """Returns the same with other settings of the backbone; those that it does not have change nothing."""
        backbone = self.model.backbone
        known = {field.name for field in dataclasses.fields(cast(Any, backbone))}
        chosen = {name: value for name, value in settings.items() if name in known}
        return self._replace(model=self.model.clone(backbone=backbone.clone(**chosen)))


def check_installed(what: str, packages: tuple[str, ...]) -> None:
    """Refuses what needs packages that are not there.

    Raises:
        ConfigError: One of them is missing.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{what} needs {' and '.join(missing)}: pip install 'svdnet-jax[export]'")
