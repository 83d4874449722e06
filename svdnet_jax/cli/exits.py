"""How an experiment says no."""

from svdnet_jax.reporting.terminal import say, terminal


def refuse(message: str, code: int) -> int:
    """Says on stderr why nothing more is done, and gives the exit code back."""
    say(terminal(stderr=True), f"error: {message}" if code < 128 else message)
    return code
