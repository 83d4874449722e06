"""What keeps others out of a local server: the Host and the origin of a request, and the headers of every answer.

A page elsewhere on the web can make a browser send requests to 127.0.0.1. It cannot read the answers, unless the name
of its site leads to 127.0.0.1 too (DNS rebinding): such requests carry that name as their Host, and are refused. What
another page sends as a form, or loads as a picture, says where it comes from, and is refused as well.
"""

import ipaddress
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Scope = Any
Receive = Callable[[], Any]
Send = Callable[[Any], Any]

HEADERS: Mapping[bytes, bytes] = MappingProxyType(
    {
        b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"no-referrer",
        b"cross-origin-resource-policy": b"same-origin",
        b"cross-origin-opener-policy": b"same-origin",
        b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
    }
)
"""Of every answer: nothing is loaded from elsewhere, nothing is sent elsewhere, and no other page shows this one."""


def host_of(authority: str) -> str:
    """Returns the host of ``host:port``, in small letters and without brackets; empty if it is none."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        return host.lower() if bracket and (not rest or rest.startswith(":")) else ""
    host, _, port = authority.partition(":")
    return host.lower() if not port or port.isdigit() else ""


def is_loopback(host: str) -> bool:
    """Returns whether a host is this machine and nothing else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Returns whether a host is written as numbers: no name, which could lead anywhere."""
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def allowed_hosts(*names: str, open_to_others: bool) -> Callable[[str], bool]:
    """Returns which hosts requests may be made to.

    Args:
        names: Of this machine, which others use.
        open_to_others: Whether others may come at all; else only this machine's own addresses are.
    """
    known = {name.lower() for name in names}
    if not open_to_others:
        return is_loopback
    return lambda host: is_loopback(host) or is_address(host) or host in known


class Guard:
    """Refuses requests that were made to another host or come from another page, and adds `HEADERS` to all answers.

    Args:
        app: What answers the others.
        allowed: From `allowed_hosts`.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Any], allowed: Callable[[str], bool]) -> None:
        self._app, self._allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", ()), *HEADERS.items()]}
            await send(message)

        if why := why_refused(scope["method"], scope["path"], scope["headers"], self._allowed):
            await _refuse(with_headers, why)
        else:
            await self._app(scope, receive, with_headers)


def why_refused(method: str, path: str, headers: list[tuple[bytes, bytes]], allowed: Callable[[str], bool]) -> str:
    """Returns why a request is refused; empty if it is not."""
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    if len(hosts) != 1 or not allowed(host_of(hosts[0])):
        return "this server answers to its own address only; open the address that `svdnet serve` printed"
    sent = {name: value.decode("latin-1") for name, value in headers}
    origin = sent.get(b"origin")
    if origin is not None and origin.partition("://")[2] != hosts[0]:
        return "the request comes from another page"
    # A link on another page may lead to this one, but that page gets nothing else.
    if sent.get(b"sec-fetch-site", "none") not in ("same-origin", "none") and (method, path) != ("GET", "/"):
        return "the request comes from another page"
    return ""


async def _refuse(send: Send, why: str) -> None:
    body = json.dumps({"error": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
