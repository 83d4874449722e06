"""SVDNet trained by Restraint and Relaxation Iteration: the main job.

    python -m experiments.market_rri                                built-in synthetic pedestrians
    python -m experiments.market_rri --data.root Market-1501-v15.09.15
    python -m experiments.market_rri --rri.method none --out runs/control   the control, without decorrelation

Step 0 trains the whole network; each round then replaces the Eigenlayer's W by U S, trains the rest (restraint) and
trains all of it (relaxation). The run folder holds the log, checkpoints, figures and report.html. The same command
again goes on where it was stopped. Ctrl-C at any time loses nothing but the steps since the last checkpoint.
"""

import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.cli import parse, refuse
from svdnet_jax.config import ConfigError
from svdnet_jax.data.splits import DataError
from svdnet_jax.reporting.log import LogError
from svdnet_jax.run import run
from svdnet_jax.training.measure import TrainingDiverged


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; 0 if all went well, 2 for input that cannot be used, 1 if training diverged."""
    console = Console()
    try:
        config = parse(argv, "python -m experiments.market_rri", __doc__ or "")
        run(config, console)
    except (ConfigError, DataError, LogError) as error:
        return refuse(str(error), 2)
    except TrainingDiverged as error:
        return refuse(str(error), 1)
    except KeyboardInterrupt:
        return refuse("stopped; the same command goes on from the last checkpoint", 130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
