"""What gains: the orthogonality, or the shock to the classifier? A random rotation in place of the SVD.

    python -m experiments.rotation        or: svdnet study rotation

Hardware and time: 45 minutes for ten seeds after experiments.control on two CPU cores, built-in data. To expect: US
less rotation is +0.3 [-0.4, +1.0] points of mAP, and +5.5 [+4.4, +6.7] with the classifier turned; on Market-1501 mAP
is 50.0 by US, 50.2 by the rotation and 47.5 by the control (docs/results.md has the tables with seeds and spread).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("rotation", None, "python -m experiments.rotation"))
