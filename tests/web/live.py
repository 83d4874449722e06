"""A page served by uvicorn, as `svdnet serve` does it, in a thread of the test's process."""

import socket
import threading
import time
from contextlib import contextmanager

import uvicorn

from svdnet_jax.cli.serve import server_config
from svdnet_jax.web.app import create_app
from svdnet_jax.web.guard import allowed_hosts


@contextmanager
def serving(page):
    """Serves until the block ends; the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(uvicorn, create_app(page, allowed_hosts(open_to_others=False))))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
