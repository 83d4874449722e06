"""Runs beside their controls: `svdnet compare`.

    python -m experiments.compare --runs runs/rri-0 --controls runs/control-0 --out runs/comparison-0

Takes seconds, of runs that are there.
"""

import sys

from svdnet_jax.cli.compare import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m experiments.compare"))
