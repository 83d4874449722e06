"""Prepares the pages of the site, and refuses one that a browser would load with something from another machine."""

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)\)")
"""A link to a file or folder, without an anchor."""
LOADED = re.compile(
    r"<(?:script|img|iframe|source|audio|video)\b[^>]*\bsrc=\W?(?:https?:)?//[^>]*>|<link\b[^>]*>", re.I
)
FOREIGN = re.compile(r"\bhref=\W?(?:https?:)?//", re.I)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Replaces links to source files and to folders, of which the site has no page, by their text."""
    folder, docs = Path(page.file.abs_src_path).parent, Path(config["docs_dir"]).resolve()

    def plain(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        elsewhere = target.exists() and (target.is_dir() or not target.is_relative_to(docs))
        return link[1] if elsewhere else link[0]

    return LINK.sub(plain, markdown)


def foreign(html: str) -> list[str]:
    """Returns the tags by which a browser would load something from another machine."""
    return [tag for tag in LOADED.findall(html) if not tag.startswith("<link") or FOREIGN.search(tag)]


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Refuses foreign scripts, styles and pictures.

    Raises:
        ValueError: The page has some.
    """
    if found := foreign(output):
        raise ValueError(f"{page.file.src_path}: loads from another machine: {found[0]}. Keep a copy in docs/site")
    return output
