"""Pages whose code runs: a page is one program, and what it shows is what its blocks print.

A block of Python goes on from the one before; a block of `sh` runs by itself in the same folder. A block of `text`
right after one is what that prints. `python tests/documents.py [PAGE ...]` writes those of the pages anew.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n(?:\n(<!-- trained -->\n)?```text\n(.*?)^```\n)?", re.S | re.M)
BORDER = "=== end of a block ==="
PROGRESS = re.compile(r"^(?:Looking at|Embedding) images \d+/\d+.*\n", re.M)
"""Lines that come by the clock."""
NUMBER = re.compile(r"\S*\d\S*")
"""A number, or a name that has one in it."""


class Block(NamedTuple):
    """A block of code of a page."""

    language: str
    code: str
    shown: str | None
    """What the page shows after it; None where nothing."""
    trained: bool
    """Whether numbers in it come of training, so that another machine has others."""
    place: tuple[int, int]
    """Where the shown text is in the page."""


def blocks(text):
    """The blocks of a page that run."""
    return [
        Block(match[1], match[2], match[4], match[3] is not None, match.span(4))
        for match in BLOCK.finditer(text)
        if "<!-- not run -->\n" not in text[max(0, match.start() - 17) : match.start()]
    ]


def program(found):
    """The page as a program, which prints a line after each block."""
    lines = ["import subprocess, sys"]
    for block in found:
        run = f"exec(compile({block.code!r}, 'page', 'exec'))"
        if block.language == "sh":
            run = f"subprocess.run(['bash', '-euo', 'pipefail', '-c', {block.code!r}], check=True)"
        lines += [run, f"print({BORDER!r}, flush=True)"]
    return "\n".join(lines)


def run_python(code, folder=ROOT, **environment):
    """What a program prints, run as a user runs it in a folder; with the package of this checkout."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = {"PATH": path, "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "COLUMNS": "110"}
    environment = os.environ | ours | environment
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment, encoding="utf-8"
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def outputs(text, folder):
    """What each block of a page prints."""
    printed = PROGRESS.sub("", run_python(program(blocks(text)), folder)).split(BORDER + "\n")[:-1]
    return ["\n".join(line.rstrip() for line in each.splitlines()) + "\n" if each else "" for each in printed]


def comparable(output, trained):
    """What has to be the same on every machine."""
    return re.sub(r" +", " ", NUMBER.sub("#", output)) if trained else output


def check(text, folder):
    """Runs a page and compares what it shows."""
    found = blocks(text)
    assert found
    for block, output in zip(found, outputs(text, folder), strict=True):
        if block.shown is not None:
            assert comparable(block.shown, block.trained) == comparable(output, block.trained), block.code
        else:
            assert not output, f"the page does not show what this prints: {block.code}\n{output}"


def rewritten(text, folder):
    """The page with what its blocks print now."""
    for block, output in reversed(list(zip(blocks(text), outputs(text, folder), strict=True))):
        if block.shown is not None:
            text = text[: block.place[0]] + output + text[block.place[1] :]
    return text


def rewrite(names):
    """Writes pages anew, in folders of their own."""
    from tempfile import TemporaryDirectory

    for page in PAGES:
        if not names or page.stem in names:
            with TemporaryDirectory() as folder:
                page.write_text(rewritten(page.read_text("utf-8"), Path(folder)), "utf-8")


if __name__ == "__main__":
    rewrite(sys.argv[1:])
