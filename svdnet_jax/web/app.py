"""The server's routes: what comes in is bounded here, and what is answered is computed in `answers`."""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import resources
from typing import Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from svdnet_jax.errors import DataError
from svdnet_jax.web import answers
from svdnet_jax.web.alike import alike_picture
from svdnet_jax.web.guard import Guard
from svdnet_jax.web.load import Served
from svdnet_jax.web.pictures import Thumbnails
from svdnet_jax.web.questions import MOST_SHOWN, parse_asked, parse_order

MOST_UPLOADED = 2**23
"""Bytes of an image from elsewhere, 8 MiB."""
MOST_ASKED = 2**18
"""Bytes of a question; 2 048 numbers take 45 000."""
SECONDS = 30.0
"""For a request to arrive as a whole."""
READERS, DECODERS, SEARCHERS = 8, 1, 2
"""Uploads that are received, images that a network looks at, and searches that are made, at a time; others wait for
their turn. Each search uses all cores: of 20 000 images, ten clients are served twice as fast by two at a time as by
four."""
LOADERS = 2
"""Embeddings that are read, listed or mapped at a time, beside the searches."""
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/cards.js": ("cards.js", "text/javascript; charset=utf-8"),
    "/map.js": ("map.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""The page, by address."""

Endpoint = Callable[[Request], Awaitable[Response]]


class _Refused(Exception):
    """A request that is not looked at further."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def create_app(served: Served, allowed: Callable[[str], bool]) -> Guard:
    """Returns the server of a page, as an ASGI application.

    Args:
        served: What it shows.
        allowed: Which hosts requests may be made to.
    """
    thumbnails, stamp = Thumbnails(served.pictures), secrets.token_hex(8)
    readers, decoders = anyio.Semaphore(READERS), anyio.CapacityLimiter(DECODERS)
    searchers, loaders = anyio.CapacityLimiter(SEARCHERS), anyio.CapacityLimiter(LOADERS)

    async def search(request: Request) -> Any:
        body = await _body(request, "application/json", MOST_ASKED)
        return await _threaded(lambda: answers.search(served, parse_asked(body)), searchers)

    async def embed(request: Request) -> Any:
        _check_length(request, MOST_UPLOADED)
        async with readers:
            body = await _body(request, "application/octet-stream", MOST_UPLOADED)
        return await _threaded(partial(answers.embed_image, served, body), decoders)

    async def queries(request: Request) -> Any:
        asked = request.query_params
        order = parse_order(asked.get("order", "worst"))
        start, count = _whole(asked.get("start", "0")), min(_whole(asked.get("count", "60")), MOST_SHOWN)
        text = asked.get("text", "")
        keys = asked.get("source", ""), asked.get("beside", "")
        return await _threaded(lambda: answers.queries(served, *keys, order, text, start, count), loaders)

    async def source(request: Request) -> Any:
        key = request.query_params.get("source", "")
        return await _threaded(lambda: answers.describe(answers.source_of(served, key)), loaders)

    async def points(request: Request) -> Any:
        key = request.query_params.get("source", "")
        return await _threaded(lambda: answers.map_points(answers.source_of(served, key)), loaders)

    async def about(request: Request) -> Any:
        addresses = {"images": f"/image/{stamp}/", "alike": f"/alike/{stamp}/"}
        return answers.about(served) | addresses | {"most_uploaded": MOST_UPLOADED}

    async def image(request: Request) -> Any:
        kind, row = request.path_params["kind"], request.path_params["row"]
        if kind not in served.pictures or row >= served.counts[kind]:
            raise answers.NotThere("no such image")
        return _jpeg(await _threaded(partial(thumbnails.get, kind, row), None))

    async def alike(request: Request) -> Any:
        asked = [request.path_params[name] for name in ("source", "kind", "row", "found", "what")]
        return _jpeg(await _threaded(partial(alike_picture, served, *asked), decoders))

    routes = [
        *(Route(path, _file(*named), methods=["GET"]) for path, named in FILES.items()),
        Route("/api/about", _answered(about), methods=["GET"]),
        Route("/api/source", _answered(source), methods=["GET"]),
        Route("/api/queries", _answered(queries), methods=["GET"]),
        Route("/api/map", _answered(points), methods=["GET"]),
        Route("/api/search", _answered(search), methods=["POST"]),
        Route("/api/embed", _answered(embed), methods=["POST"]),
        Route(f"/image/{stamp}/{{kind:str}}/{{row:int}}", _answered(image), methods=["GET"]),
        Route(
            f"/alike/{stamp}/{{source:str}}/{{kind:str}}/{{row:int}}/{{found:int}}/{{what:str}}",
            _answered(alike),
            methods=["GET"],
        ),
    ]
    return Guard(Starlette(routes=routes), allowed)


def _file(name: str, kind: str) -> Endpoint:
    """Returns the endpoint of one of the page's own files, read once."""
    content = resources.files("svdnet_jax.web").joinpath("page", name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return endpoint


def _answered(work: Callable[[Request], Awaitable[Any]]) -> Endpoint:
    """Returns an endpoint that answers in JSON, and says in a line what was wrong with a question."""

    async def endpoint(request: Request) -> Response:
        try:
            found = await work(request)
        except _Refused as error:
            # What was sent is not read to its end, so the connection is of no further use.
            return _json({"error": str(error)}, error.status, {"connection": "close"})
        except answers.NotThere as error:
            return _json({"error": str(error)}, 404)
        except (ValueError, DataError) as error:
            return _json({"error": str(error)}, 422)
        except ClientDisconnect:
            return Response(status_code=400)
        except (OSError, MemoryError) as error:
            logging.getLogger(__name__).error("%s: %s", request.url.path, error)
            return _json({"error": "the machine could not do that; the terminal of `svdnet serve` says why"}, 503)
        return found if isinstance(found, Response) else _json(found)

    return endpoint


def _jpeg(content: bytes) -> Response:
    # Its address is another one at each start of the server.
    return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Response(content, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


async def _threaded(work: Callable[[], Any], limiter: anyio.CapacityLimiter | None) -> Any:
    return await anyio.to_thread.run_sync(work, limiter=limiter)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(f"expected a whole number; found {text[:20]!r}")
    return int(text)


def _check_length(request: Request, most: int) -> None:
    """Refuses what says of itself that it is too long, before any of it is read."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise _Refused(413, f"at most {most} bytes are taken; found {length}")


async def _body(request: Request, kind: str, most: int) -> bytes:
    """Returns what was sent.

    Raises:
        _Refused: It is of another kind, too long, or too slow.
    """
    _check_length(request, most)
    # Neither kind can be sent by a form of another page.
    if request.headers.get("content-type", "").partition(";")[0].strip() != kind:
        raise _Refused(415, f"expected content of the type {kind}")
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise _Refused(413, f"at most {most} bytes are taken")
    except TimeoutError:
        raise _Refused(408, f"the request did not arrive within {SECONDS:.0f} seconds") from None
    return bytes(body)
