"""What does retrieval by PCANet's filters give, without labels or gradients?

    python -m experiments.pcanet        or: svdnet study pcanet

Hardware and time: half a minute on two CPU cores, built-in data. To expect: mAP 1.6, of raw pixels 0.5
(docs/results.md has the tables with seeds and spread).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("pcanet", None, "python -m experiments.pcanet"))
