"""A local page to look into a run: search with its queries or a picture of yours, thresholds, two embeddings, a map.

    svdnet serve --run runs/synthetic                                     the run's own test images
    svdnet serve --run runs/synthetic --beside runs/control               two runs on the same images
    svdnet serve --run runs/market --data.root Market-1501-v15.09.15      where its data lie elsewhere now
    svdnet serve --run runs/synthetic --gallery mine.npz --images crops   your images, embedded by svdnet embed

Shows for each found image its distance, name and camera, and how sure that is: the share of pairs of two people that
are as near or nearer, counted on the run's own test set (it holds for that network, those data and those cameras only).
Queries are sorted by average precision, worst first. Step 0 and the last round, the Eigenlayer's output and its input
can be put side by side. Nothing that you drop on the page is kept, and nothing leaves this machine.

The server listens at 127.0.0.1, which only this machine reaches. For --host and another address give --open too:
whoever reaches it then sees all images, without a password. Needs pip install 'svdnet-jax[web]'.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from svdnet_jax.cli.exits import fail, fail_on
from svdnet_jax.config.flags import Flag
from svdnet_jax.config.layouts import Layout
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.terminal import say, terminal

CONNECTIONS = 256
"""Open at a time; a browser opens six."""
WITHOUT = "`svdnet serve` needs starlette and uvicorn: pip install 'svdnet-jax[web]'"


@dataclass(frozen=True)
class Source:
    """The data set, where it is not where the run had it."""

    root: Path | None = None
    """Folder of the data set, a CSV manifest or a prepared folder. Not given: what the run was trained on."""
    layout: Layout = "auto"
    """How it is laid out; auto looks."""
    outside: Flag = False
    """Read images that a manifest or links name outside of the data set's folder."""
    cache: Path | None = None
    """Folder of prepared data. Not given: that of the run."""


@dataclass(frozen=True)
class Options:
    """What to show, and to whom."""

    run: Path
    """Folder of a run."""
    beside: Path | None = None
    """Folder of another run, tested on the same images: shown on the right."""
    gallery: Path | None = None
    """Embeddings of images of yours (.npz), made with the run by svdnet embed, in place of the run's test set."""
    images: Path | None = None
    """Folder of the images of the embeddings, by their names. Not given: those of the data set; --gallery needs it."""
    data: Source = field(default_factory=Source)
    port: int = 8517
    """Port; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    open: Flag = False
    """Let others in who reach --host: they see all images, without a password."""


def main(argv: Sequence[str] | None = None, prog: str = "svdnet serve") -> int:
    """Runs the command line; 130 when stopped by Ctrl-C, 2 for input that cannot be used."""
    options = tyro.cli(Options, args=argv, prog=prog, description=__doc__)
    try:
        _check(options)
        _serve(options, terminal())
    except (OSError, ValueError, MemoryError) as error:
        return fail_on(error)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    return 0


def _check(options: Options) -> None:
    """Refuses before any work what does not go together."""
    # Starlette and uvicorn, which no other command needs.
    try:
        import starlette as starlette
        import uvicorn as uvicorn
    except ImportError as error:
        raise ConfigError(f"{WITHOUT} ({error})") from error
    from svdnet_jax.web.guard import is_loopback

    if not options.open and not is_loopback(options.host):
        raise ConfigError(
            f"--host {options.host}: others than this machine can reach that address, and would see all images without "
            "a password; give --open if that is meant, else leave --host out"
        )
    if not 0 <= options.port < 2**16:
        raise ConfigError(f"--port {options.port}: must be from 0 to {2**16 - 1}")
    if options.images and options.data != Source():
        raise ConfigError("--images and --data both say where the images are; leave one of them out")


def _serve(options: Options, console: Console) -> None:
    import uvicorn

    from svdnet_jax.web.app import create_app
    from svdnet_jax.web.guard import allowed_hosts
    from svdnet_jax.web.load import Images, load_served

    with _listening(options.host, options.port) as listener:  # refused before what takes seconds
        data = options.data
        images = Images(options.images, data.root, data.layout, data.outside, data.cache)
        served = load_served(options.run, options.beside, options.gallery, images, console)
        names = {options.host, socket.gethostname(), socket.getfqdn()} if options.open else set[str]()
        app = create_app(served, allowed_hosts(*names, open_to_others=options.open))
        host, port = listener.getsockname()[:2]
        say(console, served.title)
        say(console, f"http://{f'[{host}]' if ':' in host else host}:{port}/  (Ctrl-C ends it)")
        uvicorn.Server(server_config(uvicorn, app)).run(sockets=[listener])


def server_config(uvicorn: Any, app: Any) -> Any:
    """Returns how uvicorn serves: it says nothing but errors, believes no proxy, and bounds what is open at a time."""
    return uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=2,
    )


def _listening(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
        ConfigError: The address is no address of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror or error}); give another --port "
            "(0 takes any that is free), or an address of this machine"
        ) from error
