"""`svdnet serve`: what it refuses before it starts, and a run of the command itself."""

import builtins
import http.client
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from svdnet_jax.cli import serve

ROOT = Path(__file__).parents[2]


def refused(capsys, *argv):
    assert serve.main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org", ""])
def test_others_are_let_in_only_if_that_is_asked_for(capsys, host, tmp_path):
    assert "give --open if that is meant" in refused(capsys, "--run", str(tmp_path), "--host", host)


def test_a_taken_port_and_a_foreign_address_are_told_before_anything_is_read(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "cannot listen there" in refused(capsys, "--run", str(tmp_path), "--port", port)
    assert "cannot listen there" in refused(capsys, "--run", str(tmp_path), "--host", "192.0.2.1", "--open")
    assert "--port 70000: must be from 0" in refused(capsys, "--run", str(tmp_path), "--port", "70000")


def test_two_places_of_images_and_what_is_no_run_are_refused(capsys, tmp_path):
    both = ("--images", str(tmp_path), "--data.root", str(tmp_path))
    assert "leave one of them out" in refused(capsys, "--run", str(tmp_path), *both)
    own = ("--gallery", str(tmp_path / "mine.npz"), "--port", "0")
    assert "--gallery needs --images" in refused(capsys, "--run", str(tmp_path), *own)
    told = refused(capsys, "--run", str(tmp_path / "nothing"), "--port", "0")
    assert "--run" in told
    assert "is not the folder of a run" in told


def test_without_the_extra_it_says_which_line_installs_it(capsys, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name in ("starlette", "uvicorn"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'svdnet-jax[web]'" in refused(capsys, "--run", str(tmp_path))


SERVE = """
import sys
sys.path.insert(0, "tests/web")
from drawn import drawn_page
from svdnet_jax.cli import serve
from svdnet_jax.web import load
load.load_served = lambda *_: drawn_page()
sys.exit(serve.main(["--run", "any", "--port", "0"]))
"""


def test_it_says_where_it_is_answers_there_and_ends_with_ctrl_c():
    """The command in a process of its own; only what it shows is drawn here."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", SERVE], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "drawn people\n"
            port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends it\)\n", process.stdout.readline())[1])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert (answer.status, answer.headers["server"]) == (200, None)
            assert b"<title>svdnet</title>" in answer.read()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "stopped\n")
