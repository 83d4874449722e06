"""All tables and figures of the paper's questions, and docs/results.md from what they found: `svdnet study all`.

    python -m experiments.paper_tables
    python -m experiments.paper_tables --only control rounds

On the built-in data and two idle CPU cores all of it takes about three hours.
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("all", None, "python -m experiments.paper_tables"))
