"""What all figures share: colors, sizes, titles and grid, and how a figure is written.

Figures are matplotlib's objects, never pyplot, so nothing is shared between calls and no display is
needed. Colors are Okabe and Ito's, told apart by color-blind readers too.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from svdnet_jax.reporting.terminal import printable
from svdnet_jax.safe_writing import write_whole

INK = "#222222"
FAINT = "#8a8a8a"
TEXT = 9.0
"""Size of text in points."""
LONGEST = 14
"""Characters of an identity's text under a picture."""


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG at 150 dots per inch, whole or not at all; its folder is made if missing."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=150, facecolor="white")
    write_whole(path, content.getvalue())


def as_it_is(text: str) -> str:
    """Returns text such that matplotlib draws it: no formulas between dollars, no label left out for its underscore."""
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def short(people: Mapping[int, str], pid: int, digits: int = 1) -> str:
    """Returns what fits under a picture of a person: a text that the figures' font has, else the number.

    Args:
        people: What identities are called that are texts.
        pid: The person's number.
        digits: That it has at least.
    """
    text = people.get(pid, "")
    if not text or not _can_draw(text):
        return f"{pid:0{digits}d}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _can_draw(text: str) -> bool:
    """Returns whether the figures' font has all characters of a text; boxes stand for others."""
    return set(map(ord, printable(text))) <= get_font(findfont(FontProperties())).get_charmap().keys()


def tidy(axes: Axes, title: str, label: str) -> None:
    """Gives axes the common look: title at the left, thin horizontal grid, no box."""
    axes.set_title(as_it_is(title), fontsize=TEXT + 1, color=INK, loc="left")
    axes.set_ylabel(as_it_is(label), fontsize=TEXT, color=INK)
    axes.tick_params(labelsize=TEXT - 1, color=FAINT, labelcolor=INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color="#d9d9d9", linewidth=0.6)
    axes.set_axisbelow(True)
