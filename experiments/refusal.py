"""How an experiment says no."""

import sys


def refuse(message: str, code: int) -> int:
    """Says on stderr why nothing more is done, and gives the exit code back."""
    print(f"error: {message}" if code < 128 else message, file=sys.stderr)
    return code
