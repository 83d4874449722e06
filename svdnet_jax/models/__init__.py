"""Networks in Flax Linen: backbones, the SVDNet head, and weights from elsewhere."""

from typing import TYPE_CHECKING

from svdnet_jax.lazy import lazy_names

if TYPE_CHECKING:
    from svdnet_jax.models.pretrained.load import load_pretrained as load_pretrained
    from svdnet_jax.models.pretrained.load import with_pretrained as with_pretrained
    from svdnet_jax.models.svdnet import Outputs as Outputs
    from svdnet_jax.models.svdnet import SVDNet as SVDNet
    from svdnet_jax.models.svdnet import create_backbone as create_backbone

_HOMES = {
    "Outputs": "svdnet_jax.models.svdnet",
    "SVDNet": "svdnet_jax.models.svdnet",
    "create_backbone": "svdnet_jax.models.svdnet",
    "load_pretrained": "svdnet_jax.models.pretrained.load",
    "with_pretrained": "svdnet_jax.models.pretrained.load",
}
__all__ = [*_HOMES]
__getattr__ = lazy_names(__name__, _HOMES)
