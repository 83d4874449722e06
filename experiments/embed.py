"""Embeds a folder of images: `svdnet embed`.

    python -m experiments.embed --images my_photos --run runs/synthetic --out mine.npz

A thousand images take about 80 seconds with a ResNet-50 on two CPU cores.
"""

import sys

from svdnet_jax.cli.embed import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m experiments.embed"))
