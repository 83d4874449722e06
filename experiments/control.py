"""What does decorrelation add? RRI against the same budget without it.

    python -m experiments.control        or: svdnet study control

Hardware and time: forty minutes for ten seeds and the choice of rates on two CPU cores, built-in data. To expect: RRI
minus control is +4.0 [+3.4, +4.6] points of mAP by the embedding; +3.5 [+1.9, +5.1] with five seeds on another
CPU (docs/results.md has the tables with seeds and intervals).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("control", None, "python -m experiments.control"))
