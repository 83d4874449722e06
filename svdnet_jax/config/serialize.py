"""Settings as JSON: stored with a run, read back, and compared."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cattrs

from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError

# Folders may have been moved or named in another way; their content is what counts, and that has its fingerprint. The
# weights that a run started from are in its checkpoint.
PATH_FIELDS = ("out:", "data.cache:", "data.root:", "model.weights:", "base_from:", "compute.cache:")
"""Beginnings of lines of `diff` that say where things lie."""
RESUMABLE_FIELDS = (*PATH_FIELDS, "parallel:", "model.recompute:", "compute.", "machines.")
"""Those that do not make another run: where things lie, and how the work is done."""


def to_json(config: Config) -> dict[str, Any]:
    """The settings as JSON's types, nested as they are."""
    return _plain(dataclasses.asdict(config))


def from_json(settings: Mapping[str, Any]) -> Config:
    """The settings that `to_json` gave; what an older version did not have gets its default.

    Raises:
        ConfigError: They are not the settings of a run.
    """
    converter = cattrs.Converter()
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    try:
        return converter.structure(settings, Config)
    except cattrs.BaseValidationError as error:
        raise ConfigError("; ".join(cattrs.transform_error(error))) from error


def diff(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The options in which two results of `to_json` differ, each as ``option: old -> new``."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += diff(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
