"""Networks in Flax Linen: backbones and the SVDNet head."""

from svdnet_jax.models.svdnet import BACKBONES as BACKBONES
from svdnet_jax.models.svdnet import Outputs as Outputs
from svdnet_jax.models.svdnet import SVDNet as SVDNet
from svdnet_jax.models.svdnet import build as build
