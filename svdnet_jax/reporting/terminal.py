"""Prints text to terminals as it is, whatever names and paths are in it.

Rich would take ``[cuda]`` for markup and ``:smile:`` for a picture, a stream in ASCII would stop at the first umlaut,
and a file name may hold bytes that are no text or codes that move the cursor. All that is printed comes through here.
"""

import io
import re
import sys
from typing import IO

from rich.console import Console
from rich.text import Text

from svdnet_jax.config.names import as_options

# Control codes but the line end, what turns the direction of writing, and halves of UTF-16 pairs, which is how Python
# keeps the bytes of a file name that is not in UTF-8.
_HIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_HARMLESS = re.compile(r"-?[\w./]*")
_BYTE = range(0xDC80, 0xDD00)


class CommandConsole(Console):
    """The console of a command: settings are named by their options there."""


def terminal(
    *,
    stderr: bool = False,
    quiet: bool = False,
    plain: bool = False,
    file: IO[str] | None = None,
    width: int | None = None,
) -> CommandConsole:
    r"""Makes the console of a command; the only place that makes one.

    What the encoding of stdout or stderr lacks is written as ``\xe9`` from then on, instead of ending the program.

    Args:
        stderr: Whether it prints there, as where stdout is for a program to read.
        quiet: Whether it prints nothing.
        plain: Whether it prints lines only, also to a terminal, as where several processes share one.
        file: Where it prints instead of to a stream, as where there is no terminal.
        width: Columns, if not those of the terminal.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return CommandConsole(
        markup=False,
        emoji=False,
        highlight=False,
        stderr=stderr,
        quiet=quiet,
        file=file,
        width=width,
        force_terminal=False if plain else None,
    )


def say(console: Console, line: str, style: str | None = None) -> None:
    """Prints text as it is: no markup, no pictures, no coloring of numbers, no wrapping.

    Args:
        console: Where; made by `terminal`, or a caller's own. In the first, `data.root` becomes --data.root.
        line: One line or several.
        style: Of all of it, in Rich's words.
    """
    if isinstance(console, CommandConsole):
        line = as_options(line)
    console.print(Text(printable(line)), style=style, soft_wrap=True)


def printable(text: str) -> str:
    r"""Returns text without what a terminal, a page or a file in UTF-8 could not hold.

    A byte of a file name that is no UTF-8 becomes ``\xe9``, as a shell takes it back (``$'caf\xe9.jpg'``); control
    codes but the line end become ``\x1b``, other characters that do not show ``\u202e``.
    """
    return _HIDDEN.sub(lambda found: _escaped(ord(found[0])), text)


def duration(seconds: float) -> str:
    """Returns a time with its units: ``4.2 s``, ``2 min 05 s``, ``19 h 32 min``, ``3 d 04 h``, ``12 years``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    if (whole := round(seconds)) < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if (minutes := round(seconds / 60)) < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    if (hours := round(seconds / 3600)) < 1000 * 24:
        return f"{hours // 24} d {hours % 24:02} h"
    return f"{seconds / 86_400 / 365.25:.0f} years"


def clock(seconds: float) -> str:
    """Returns a time as a clock that was started with the work shows it: ``0:42``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _escaped(code: int) -> str:
    if code in _BYTE:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def as_cell(text: str) -> str:
    """Returns text for a table that somebody may open in a spreadsheet, which runs what looks like a formula.

    Such text gets an apostrophe before it; file names such as -1_c3s2_000010_02.jpg cannot do harm and stay.
    """
    shown = printable(text)
    return f"'{shown}" if shown[:1] in "=+-@" and not _HARMLESS.fullmatch(shown) else shown
