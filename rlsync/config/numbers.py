"""Checks of numbers and texts that apply to every field of the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from rlsync.errors import ConfigError

_MAY_BE_INFINITE = frozenset({"trainer.max_grad_norm", "algorithm.clip_high"})
_SEEDS = 2**63
_INTEGERS = 2**31
_PATHS = ("path", "dir", "run.name")
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Longest file name and path on Linux, in bytes."""
_LONGEST_S = 1e9
"""Longest time in seconds; the longest time-out of Python's locks is about nine times that."""


def check_values(config: Any) -> None:
    """Check every number and text of a composed configuration.

    Arguments of the user's own code (data.task_args, environment.args) are not checked.

    Raises:
        ConfigError: A float is NaN or infinite, a time or an integer is larger than libraries accept, or a text cannot
            be written to a file or is too long for a path.
    """
    for key, value in _leaves(config, ""):
        if isinstance(value, float):
            _check_float(key, value)
        elif isinstance(value, str):
            _check_text(key, value)
        elif isinstance(value, int) and abs(value) >= _INTEGERS and not key.endswith("seed"):
            digits = str(value) if abs(value) < 10**30 else "a number of more than 30 digits"
            raise ConfigError(f"{key}={digits}: must lie between -2^31 and 2^31, both excluded")


def _check_parts(key: str, parts: Any, kind: Any) -> None:
    """Check the types of a dictionary's values; OmegaConf loses the type of a value that comes from a config group."""
    if not isinstance(parts, dict):
        raise ConfigError(f"{key}={parts}: must be a dictionary, written as {key}={{NAME: VALUE}}")
    for name, part in parts.items():
        if is_dataclass(kind) and not isinstance(part, kind):  # type: ignore[arg-type]
            raise ConfigError(
                f"{key}.{name}={part}: must be a configuration. Add it by an option of its group: "
                f"+GROUP@{key}.{name}=OPTION"
            )


def _check_float(key: str, value: float) -> None:
    if math.isnan(value) or (math.isinf(value) and key not in _MAY_BE_INFINITE):
        raise ConfigError(f"{key}={value}: must be a finite number")
    if key.endswith("_s") and value > _LONGEST_S:
        raise ConfigError(f"{key}={value:g}: must be at most {_LONGEST_S:g} seconds")


def _check_text(key: str, value: str) -> None:
    if "\0" in value:
        raise ConfigError(f"{key}={value!r}: must not contain the character NUL")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{key}={value!r}: not valid Unicode ({error.reason})") from error
    longest = max(len(name.encode()) for name in value.split("/"))
    if key.endswith(_PATHS) and (longest > _LONGEST_NAME or len(value.encode()) > _LONGEST_PATH):
        raise ConfigError(
            f"{key}={value[:40]}... is too long: a file name may have at most {_LONGEST_NAME} bytes, and a path at "
            f"most {_LONGEST_PATH}"
        )


def check_counts(component: str, counts: dict[str, int]) -> None:
    """Raise ConfigError if a count is below 1.

    Args:
        component: Dotted key of the component, for messages.
        counts: Field name to value.
    """
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{component}.{name}={value}: must be at least 1")


def check_seed(key: str, seed: int) -> None:
    """Raise ConfigError for a seed that PyTorch does not accept."""
    if not 0 <= seed < _SEEDS:
        raise ConfigError(f"{key}={seed}: must not be negative, and must be less than 2^63")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted key, including values in lists and in dictionaries of components."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each, key)
    elif is_dataclass(value):
        kinds = get_type_hints(type(value))
        for field in fields(value):
            here, inside = f"{key}.{field.name}" if key else field.name, getattr(value, field.name)
            if get_origin(kinds[field.name]) is dict:
                _check_parts(here, inside, get_args(kinds[field.name])[1])
            yield from _leaves(inside, here)
    elif isinstance(value, dict):
        for name, part in value.items():
            if is_dataclass(part):
                yield from _leaves(part, f"{key}.{name}")
    else:
        yield key, value
