"""A real server on a real port: many clients, slow and rude ones, paths as they are sent."""

import http.client
import io
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from live import serving

from svdnet_jax.web import app as server

BYTES = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def port(page):
    with serving(page) as port:
        yield port


def called(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def asked(port, path, body=None, headers=None):
    status, content = called(port, "POST" if body else "GET", path, body, headers)
    assert status == 200, content
    return json.loads(content)


def raw(port, request):
    """What is answered to bytes, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def session(port, page, number):
    """What somebody does: searches, sees pictures, drops one, looks at the map."""
    images = asked(port, "/api/about")["images"]
    question = {"source": "good", "kind": "query", "row": number, "k": 20}
    found = asked(port, "/api/search", json.dumps(question), JSON)
    pictures = [called(port, "GET", f"{images}gallery/{image['row']}") for image in found["results"]]
    content = io.BytesIO()
    page.pictures["gallery"](number).save(content, "PNG")
    features = asked(port, "/api/embed", content.getvalue(), BYTES)["features"]["good"]
    question = {"source": "good", "kind": "image", "features": features, "k": 1}
    near = asked(port, "/api/search", json.dumps(question), JSON)["results"][0]
    assert near["distance"] < 1e-3
    assert {status for status, _ in pictures} == {200}
    return found, pictures, near, asked(port, "/api/map?source=bad")


def test_ten_clients_at_once_get_what_one_gets(port, page):
    alone = [session(port, page, number) for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda number: session(port, page, number), range(10)))
    assert together == alone


@pytest.mark.parametrize("path", ["/../../../etc/passwd", "/image/../../etc/passwd", "/%2e%2e/etc/passwd", "/./app.py"])
def test_paths_are_taken_as_they_are_sent(port, path):
    answer = raw(port, f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"root:" not in answer


def test_two_hosts_in_one_request_or_an_address_in_its_first_line_do_not_get_in(port):
    two = f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\n\r\n".encode()
    assert raw(port, two).startswith((b"HTTP/1.1 400", b"HTTP/1.1 403"))
    absolute = b"GET http://evil.example/api/about HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert raw(port, absolute).startswith(b"HTTP/1.1 403")
    assert raw(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403")  # without any


def test_a_long_head_is_refused(port):
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n"
    try:
        answer = raw(port, head)
    except OSError:  # hung up on while it was being sent
        return
    assert answer.startswith(b"HTTP/1.1 4")


def test_an_upload_without_end_is_not_read_on(port):
    """In pieces, with no word of how long it will be: the server hangs up soon after what it takes at most."""
    head = f"POST /api/embed HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/octet-stream\r\n"
    piece, sent = b"10000\r\n" + b"x" * 2**16 + b"\r\n", 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        with suppress(OSError):
            while sent < 10 * server.MOST_UPLOADED:
                connection.sendall(piece)
                sent += len(piece)
    assert server.MOST_UPLOADED <= sent < 3 * server.MOST_UPLOADED


def test_uploads_that_never_end_are_given_up_and_do_not_keep_others_waiting(port, page, monkeypatch):
    monkeypatch.setattr(server, "SECONDS", 1.0)
    head = (
        f"POST /api/embed HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/octet-stream\r\n"
        "Content-Length: 1000\r\n\r\nx"
    )
    slow = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(server.READERS)]
    try:
        for connection in slow:
            connection.sendall(head.encode())
        time.sleep(0.1)
        begun = time.monotonic()
        asked(port, "/api/about")
        assert time.monotonic() - begun < 0.9
        session(port, page, 0)  # waits for its turn
        assert slow[0].recv(100).startswith(b"HTTP/1.1 408")
    finally:
        for connection in slow:
            connection.close()
