"""What does the Eigenlayer lose when truncated SVD makes it smaller?

    python -m experiments.truncated        or: svdnet study truncated

Hardware and time: seconds after experiments.control, built-in data. To expect: a quarter of the directions (k = 32)
loses a tenth of a point or nothing (docs/results.md has the tables with seeds and spread).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("truncated", None, "python -m experiments.truncated"))
