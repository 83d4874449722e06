"""Who is let in: hosts, origins, and the headers that every answer has."""

import pytest

from svdnet_jax.web.guard import allowed_hosts, host_of, is_loopback, why_refused

HERE, OPEN = allowed_hosts(open_to_others=False), allowed_hosts("lab7", "10.0.0.7", open_to_others=True)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("127.0.0.1:8517", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("[::1]:8517", "::1"),
        ("[::1]", "::1"),
        ("localhost:", "localhost"),
        ("localhost:8517@evil.example", ""),
        ("localhost:80:evil.example", ""),
        ("[::1", ""),
        ("[::1]evil.example", ""),
        ("::1", ""),
        ("", ""),
    ],
)
def test_hosts_are_read_strictly(authority, host):
    assert host_of(authority) == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost", "::1"])
def test_this_machine_is_let_in(host):
    assert is_loopback(host)
    assert HERE(host)
    assert OPEN(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.7", "0.0.0.0", "lab7", "2130706433", ""],
)
def test_other_names_and_addresses_are_not(host):
    assert not HERE(host)


def test_where_others_may_come_names_still_have_to_be_known():
    """A name could be made to lead here (DNS rebinding); an address cannot."""
    assert all(map(OPEN, ("10.0.0.7", "192.168.1.4", "lab7", "fe80::1")))
    assert not any(map(OPEN, ("evil.example", "lab7.evil.example", "")))


def refusal(method="GET", path="/api/about", **headers):
    sent = {"host": "127.0.0.1:8517", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return why_refused(method, path, [(name.encode(), value.encode()) for name, value in sent.items()], HERE)


def test_other_pages_are_refused_but_for_links_to_this_one():
    assert refusal() == ""
    assert refusal(sec_fetch_site="same-origin", origin="http://127.0.0.1:8517") == ""
    assert refusal(path="/", sec_fetch_site="cross-site") == ""
    for site in ("cross-site", "same-site"):  # of another port of localhost too
        assert "another page" in refusal(sec_fetch_site=site)
        assert "another page" in refusal("POST", "/", sec_fetch_site=site)
    for origin in ("http://evil.example", "null", "http://127.0.0.1:8518", "http://127.0.0.1", ""):
        assert "another page" in refusal("POST", "/api/search", origin=origin)


def test_two_hosts_or_none_are_refused():
    assert why_refused("GET", "/", [], HERE)
    assert why_refused("GET", "/", [(b"host", b"127.0.0.1"), (b"host", b"evil.example")], HERE)
