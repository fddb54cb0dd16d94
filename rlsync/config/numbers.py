"""Rules for numbers that hold wherever they stand in the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from rlsync.errors import ConfigError

_MAY_BE_INFINITE = frozenset({"trainer.max_grad_norm", "algorithm.clip_high"})
_SEEDS = 2**63


def check_finite(config: Any) -> None:
    """Raises ConfigError for a float of a composed configuration that is NaN or infinite.

    What the user's own code takes (data.task_args, environment.args) is that code's affair.
    """
    for key, value in _floats(config, ""):
        if math.isnan(value) or (math.isinf(value) and key not in _MAY_BE_INFINITE):
            raise ConfigError(f"{key}={value}: must be a finite number")


def check_counts(component: str, counts: dict[str, int]) -> None:
    """Raises ConfigError for a field of a component, by its name, that is below 1."""
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{component}.{name}={value}: must be at least 1")


def check_seed(key: str, seed: int) -> None:
    """Raises ConfigError for a seed that PyTorch does not take."""
    if not 0 <= seed < _SEEDS:
        raise ConfigError(f"{key}={seed}: must not be negative, and be less than 2^63")


def _floats(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """Every float by its dotted key, those in lists and in dicts of components too."""
    if isinstance(value, float):
        yield key, value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _floats(each, key)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _floats(getattr(value, field.name), f"{key}.{field.name}" if key else field.name)
    elif isinstance(value, dict):
        for name, part in value.items():
            if is_dataclass(part):
                yield from _floats(part, f"{key}.{name}")
