"""A finished run that the tests in this folder share, in each process that has some of them."""

import pytest
from tiny_run import ONE, arguments

from experiments.market_rri import main


@pytest.fixture(scope="session")
def finished(workshop):
    """A run of the tiny preset, on one device: programs that other files train with, too."""
    out = workshop / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        # As the files that are marked so, whichever of them comes first.
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        assert main(arguments(out, workshop / "data", *ONE)) == 0
    return out
