"""Settings as JSON: stored with a run, read back, and compared."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cattrs

from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError

# Folders may have been moved or named in another way; their content is what counts, and that has its fingerprint. The
# weights that a run started from are in its checkpoint.
PATH_FIELDS = (
    "out:",
    "data.cache:",
    "data.root:",
    "data.more:",
    "data.outside:",
    "model.weights:",
    "base_from:",
    "compute.cache:",
)
"""Beginnings of lines of `diff` that say where things lie."""
RESUMABLE_FIELDS = (
    *(*PATH_FIELDS, "parallel:", "model.remat:", "compute.", "machines.", "log.", "log:"),
    "rri.evaluate_restraint:",
)
"""Those that do not make another run: where things lie, how the work is done, what is written beside the log (a section
that older settings lack), and what is measured on the way."""


def to_json(config: Config) -> dict[str, Any]:
    """Returns the settings as JSON's types, nested as they are."""
    return _plain(dataclasses.asdict(config))


RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "data.per_identity": "data.num_instances",
        "data.erase": "data.erase_prob",
        "loss.smoothing": "loss.label_smoothing",
        "optimizer.accumulate": "optimizer.grad_accum_steps",
        "model.recompute": "model.remat",
        "model.dim": "model.embedding_dim",
    }
)
"""Settings that had another name before version 0.2, by that name. To be taken out with version 0.3."""


ADDED: Mapping[str, Any] = MappingProxyType(
    {"data.more": [], "data.combine_all": False, "model.keep_eigenlayer": False}
)
"""Settings that older runs do not have, and what they did."""


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns stored settings under the names that they have now, with what was added since."""
    current = {name: dict(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
    for old, new in RENAMED.items():
        section, name = old.split(".")
        held = current.get(section)
        if isinstance(held, dict) and name in held:
            held[new.split(".")[1]] = held.pop(name)
    for added, value in ADDED.items():
        section, name = added.split(".")
        if isinstance(held := current.get(section), dict):
            held.setdefault(name, value)
    return current


def with_current_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns a command line with the options that it has now, and a notice for each that had another name before."""
    options = {f"--{old}".replace("_", "-"): f"--{new}".replace("_", "-") for old, new in RENAMED.items()}
    # tyro takes both spellings, and switches have a form that negates them.
    options |= {
        f"--{section}.no-{name}": options[f"--{section}.{name}"].replace(".", ".no-", 1)
        for section, name in (option.removeprefix("--").split(".") for option in options)
    }
    current, notices = [], []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        spelled = name.replace("_", "-")
        if name.startswith("--") and spelled in options:
            notices.append(f"note: {name} is now {options[spelled]}; the old name will go with version 0.3")
            name = options[spelled]
        current.append(f"{name}{equals}{value}")
    return current, notices


def from_json(settings: Mapping[str, Any]) -> Config:
    """Returns the settings that `to_json` gave; what an older version did not have gets its default.

    Raises:
        ConfigError: They are not the settings of a run.
    """
    if not isinstance(settings, Mapping):
        raise ConfigError(f"expected the settings of a run, found {type(settings).__name__}")
    converter = cattrs.Converter()
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    try:
        return converter.structure(with_current_names(settings), Config)
    except cattrs.BaseValidationError as error:
        raise ConfigError("; ".join(cattrs.transform_error(error))) from error


def diff(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns the options in which two results of `to_json` differ, each as ``option: old -> new``."""
    if prefix in ("", "settings."):  # the settings, and those in the first line of a log
        old, new = with_current_names(old), with_current_names(new)
    changed = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            changed += diff(a, b, f"{prefix}{key}.")
        elif a != b:
            changed.append(f"{prefix}{key}: {a} -> {b}")
    return changed


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
