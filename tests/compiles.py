"""How often JAX compiles what, as it says in its log."""

import logging
import re
from collections import Counter
from contextlib import contextmanager

import jax


@contextmanager
def counted():
    """Yields a counter of compilations by the name of the function, ``call`` for training steps."""
    found = Counter()
    logger = logging.getLogger("jax._src.interpreters.pxla")

    class Handler(logging.Handler):
        def emit(self, record):
            if name := re.match(r"Compiling (?:jit\()?([\w<>]+)", record.getMessage()):
                found[name[1]] += 1

    handler, propagate = Handler(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with jax.log_compiles():
            yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
