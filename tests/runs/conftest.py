"""A finished run that the tests in this folder share, in each process that has some of them."""

import jax
import pytest
from tiny_run import ONE, arguments

from experiments.market_rri import main


@pytest.fixture(scope="session")
def finished(workshop):
    """A run of the tiny preset, on one device: programs that other files train with, too."""
    out = workshop / "tiny"
    # It is made before its first file is; this is how the files here compile.
    jax.config.update("jax_disable_most_optimizations", True)
    assert main(arguments(out, workshop / "data", *ONE)) == 0
    jax.config.update("jax_disable_most_optimizations", False)
    return out
