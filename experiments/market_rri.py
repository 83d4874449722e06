"""SVDNet trained by Restraint and Relaxation Iteration: the main job.

    python -m experiments.market_rri                                built-in synthetic pedestrians
    python -m experiments.market_rri --data.root Market-1501-v15.09.15
    python -m experiments.market_rri --preset paper-resnet50 --data.root Market-1501 --model.weights resnet50.h5
    python -m experiments.market_rri --rri.method none --out runs/control   the control, without decorrelation

Step 0 trains the whole network; each round then replaces the Eigenlayer's W by U S, trains the rest (restraint) and
trains all of it (relaxation). The run folder holds the log, checkpoints, figures and report.html. The same command
again goes on where it was stopped. Ctrl-C saves and ends it; a crash loses the steps since the last
checkpoint, which the same command takes again to the same result.

The built-in data take three minutes on two CPU cores. A ResNet-50 wants a GPU: the paper's recipe is 137 000
steps of 32 images, short-resnet50 a tenth of it; docs/recipes.md says how each differs from what was published.
"""

import sys
from collections.abc import Sequence

from svdnet_jax.cli import train


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    return train.main(argv, "python -m experiments.market_rri")


if __name__ == "__main__":
    sys.exit(main())
