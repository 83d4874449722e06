"""Retrieval metrics of embeddings in files, or of a network on a data set: `svdnet evaluate`.

    python -m experiments.evaluate --query q.npz --gallery g.npz
    python -m experiments.evaluate --run runs/synthetic --data.root Market-1501-v15.09.15

Files of Market-1501's size take four seconds on two CPU cores, re-ranking ten more.
"""

import sys

from svdnet_jax.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m experiments.evaluate"))
