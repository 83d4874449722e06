"""How many outputs should the Eigenlayer have? 16 and up to its input's.

    python -m experiments.dimensions        or: svdnet study dimensions

Hardware and time: five minutes a seed on two CPU cores, built-in data. To expect: RRI less
control is +0.7 points of mAP at 16 outputs and +4.7 at 256 (docs/results.md has the tables with seeds and intervals).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("dimensions", None, "python -m experiments.dimensions"))
