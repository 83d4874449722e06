"""What should take the place of W? US, U, UV', QD or nothing; matched columns; the classifier turned.

    python -m experiments.decorrelation        or: svdnet study decorrelation

Hardware and time: four to five minutes a seed on two CPU cores, built-in data. To expect: US gains
+2.1 [-0.3, +4.5] points of mAP over the control after two rounds (docs/results.md has the tables with seeds and
spread).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("decorrelation", None, "python -m experiments.decorrelation"))
