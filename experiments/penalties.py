"""Does a penalty of orthogonality in the loss do as well as RRI?

    python -m experiments.penalties        or: svdnet study penalties

Hardware and time: seven minutes a seed on two CPU cores, built-in data. To expect: soft orthogonality from the first
step is ahead of RRI in the paper's form by the mAP of the embedding, 39.7 against 36.7 (docs/results.md has the tables
with seeds and intervals).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("penalties", None, "python -m experiments.penalties"))
