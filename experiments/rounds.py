"""How do retrieval and S(W) go by round? The paper's figure of convergence, with the control beside it.

    python -m experiments.rounds        or: svdnet study rounds

Hardware and time: seconds after experiments.control, else as long as that, built-in data. To expect: S(W) rises from
0.04 to 0.20 in four rounds, mAP from 33.2 to 37.9 (docs/results.md has the tables with seeds and spread).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("rounds", None, "python -m experiments.rounds"))
