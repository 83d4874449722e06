"""What should take the place of W? US, U, UV', QD or nothing; matched columns; the classifier turned.

    python -m experiments.decorrelation        or: svdnet study decorrelation

Hardware and time: four to five minutes a seed on two CPU cores, built-in data. To expect: US gains
+2.6 [+0.8, +4.3] points of mAP over the control after two rounds, with the classifier turned along +6.0 [+4.3, +7.6]
(docs/results.md has the tables with seeds and intervals).
"""

import sys

from svdnet_jax.cli.study import run

if __name__ == "__main__":
    sys.exit(run("decorrelation", None, "python -m experiments.decorrelation"))
