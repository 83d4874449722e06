"""SVDNet by the paper's recipe on CUHK03, new protocol, detected boxes.

    python -m experiments.cuhk03_rri --data.root cuhk03 --model.weights resnet50.h5
    python -m experiments.cuhk03_rri --data.root cuhk03 --data.layout cuhk03-labelled --model.weights resnet50.h5

All options are those of experiments.market_rri. The folder holds cuhk03_new_protocol_config_detected.mat (or
_labeled.mat) beside cuhk-03.mat or the images taken from it. The paper reports 41.5 rank-1 and 37.3 mAP (by the
trapezoid rule) on detected boxes with ResNet-50.
"""

import sys
from collections.abc import Sequence

from svdnet_jax.cli import train


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    return train.main(argv, "python -m experiments.cuhk03_rri", layout="cuhk03-detected")


if __name__ == "__main__":
    sys.exit(main())
