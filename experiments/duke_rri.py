"""SVDNet by the paper's recipe on DukeMTMC-reID, for those who hold that data set lawfully.

    python -m experiments.duke_rri --data.root DukeMTMC-reID --model.weights resnet50.h5

All options are those of experiments.market_rri. The data set's owners withdrew it in 2019 over the privacy of the
people in it: we link to no copy and have not run this on its images. The paper reports 76.7 rank-1 and 56.8 mAP (by
the trapezoid rule) with ResNet-50.
"""

import sys
from collections.abc import Sequence

from svdnet_jax.cli import train


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    return train.main(argv, "python -m experiments.duke_rri", layout="dukemtmc")


if __name__ == "__main__":
    sys.exit(main())
