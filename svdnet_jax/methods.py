"""Names of what may take the place of W; `svdnet_jax.eigenlayer` has the mathematics. Known without importing jax."""

from typing import Literal

Method = Literal["us", "u", "uvt", "qd", "rotation", "none"]
