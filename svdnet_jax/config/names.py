"""Settings by name: texts of the library say `data.batch_size`, those of a command --data.batch-size."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from svdnet_jax.config.schema import Config

ARGUMENTS = frozenset(
    (
        *(
            "beside",
            "cross_camera",
            "duplicates",
            "gallery",
            "images",
            "index",
            "k",
            "k1",
            "k2",
            "kind",
            "leave_self_out",
        ),
        *("outside", "query", "run", "size", "split", "weights"),
    )
)
"""Arguments of the library's functions that are options of a command, under the same name."""
_NAME = re.compile(r"(?<!`)`([a-z][a-z0-9_.]*)`(?!`)( False)?")


@cache
def setting_names() -> frozenset[str]:
    """Returns the names of all settings, those in sections with a dot: ``data.batch_size``."""
    return frozenset(_names(Config, ""))


def as_options(text: str) -> str:
    """Returns a text for the command line: names in backticks become options, `x` False the one that negates x."""

    def option(match: re.Match[str]) -> str:
        name, false = match.groups()
        if name not in setting_names() | ARGUMENTS:
            return match[0]
        section, _, last = name.rpartition(".")
        prefix = f"{section}." if section else ""
        return f"--{prefix}{'no-' if false else ''}{last}".replace("_", "-")

    return _NAME.sub(option, text)


def _names(section: Any, prefix: str) -> Iterator[str]:
    kinds = get_type_hints(section)
    for field in fields(section):
        yield prefix + field.name
        for kind in (kinds[field.name], *get_args(kinds[field.name])):
            if is_dataclass(kind):
                yield from _names(kind, f"{prefix}{field.name}.")
