"""The fields of the configuration by dotted keys."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from rlsync.config.run import TrainConfig


@cache
def valid_keys() -> list[str]:
    """Return every dotted key of a training run's configuration, except those below dictionaries, which users name."""
    return _keys(TrainConfig, "")


def type_at(key: str) -> Any:
    """Return the declared type of the field that a dotted key names.

    Returns:
        Any for every key below a dict[str, Any], and None where the schema has no such key.
    """
    found: Any = TrainConfig
    for name in key.split("."):
        if dataclasses.is_dataclass(found):
            found = get_type_hints(found).get(name)
        elif get_origin(found) is dict:
            found = get_args(found)[1]
        elif found is not Any:
            return None
    return found


def _keys(schema: type, prefix: str) -> list[str]:
    keys = []
    for field in dataclasses.fields(schema):
        factory = field.default_factory
        if isinstance(factory, type) and dataclasses.is_dataclass(factory):
            keys += _keys(factory, f"{prefix}{field.name}.")
        else:
            keys.append(prefix + field.name)
    return keys
