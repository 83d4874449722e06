"""Does a penalty of orthogonality in the loss do as well as RRI?

    python -m experiments.penalties        or: svdnet study penalties

Hardware and time: five minutes a seed on two CPU cores, built-in data. To expect: soft orthogonality from the first
step has the mAP of RRI by the embedding, 63.0 against 62.8 (docs/results.md has the tables with seeds and spread).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("penalties", None, "python -m experiments.penalties"))
