"""Refuse keys that the user set and that nothing would read.

Keys that a recipe or a group's file sets may go unread, because the user did not write them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from rlsync.config.reads import NEVER, READ, Rule, shown
from rlsync.config.run import TrainConfig
from rlsync.errors import ConfigError


def check_read(config: TrainConfig, keys: Iterable[str]) -> None:
    """Refuse keys that the user set and nothing reads. A value that equals the default is accepted.

    Args:
        config: The composed configuration.
        keys: Dotted keys that the command line sets.

    Raises:
        ConfigError: A key is not read. The message names the key, its value, and what must be set for it to be read.
    """
    for key in keys:
        if why := unread(config, key):
            raise ConfigError(why)


def check_chosen(config: TrainConfig, choice: str, keys: Iterable[str]) -> None:
    """Refuse a group's option if nothing reads any of its keys.

    Args:
        config: The composed configuration.
        choice: `group=option`, as the user wrote it.
        keys: Dotted keys that the option's file sets.

    Raises:
        ConfigError: No key of the option is read.
    """
    reasons = {key: unread(config, key) for key in keys}
    if reasons and all(reasons.values()):
        raise ConfigError(f"{choice} has no effect: {next(iter(reasons.values()))}")


def unread(config: TrainConfig, key: str) -> str | None:
    """Return why nothing reads the value at a dotted key; None if it is read or is the default."""
    places = list(_places(config, key))
    if not places or _is_default(*places[-1][1:]):
        return None
    at, component, name = places[-1]
    said = f"{key}={shown(_value(component, name))}" if _joined(at, name) == key else key  # else below a dictionary
    for pattern, why in NEVER:
        if pattern.fullmatch(key):
            return f"{said} has no effect: {why}. Leave it out."
    for at, component, name in places:
        for rule in _rules(component, name):
            values = [(_absolute(at, c.field), _lookup(config, component, c.field)) for c in rule]
            if not any(c.holds(found) for c, (_, found) in zip(rule, values, strict=True)):
                now = " and ".join(f"{field}={shown(found)}" for field, found in values)
                wanted = " or ".join(f"{field}{c.wanted}" for c, (field, _) in zip(rule, values, strict=True))
                advice = rule[0].advice.format(at=at, name=name)
                return f"{said} has no effect with {now}: it is read with {wanted}. {advice}, or leave it out."
    return None


def _places(config: TrainConfig, key: str) -> Iterator[tuple[str, Any, str]]:
    """Yield, for each component on the way to a key, its dotted key, the component, and the name of the field in it."""
    at, found = "", config
    for name in key.split("."):
        if is_dataclass(found):
            yield at, found, name
            found = _value(found, name)
        elif isinstance(found, dict) and is_dataclass(found.get(name)):
            found = found[name]
        else:  # below a free dictionary such as data.task_args, or a part that was removed
            return
        at = _joined(at, name)


def _rules(component: Any, name: str) -> list[Rule]:
    return [rule for kind in type(component).__mro__ for rule in READ.get(kind, {}).get(name, [])]


def _lookup(config: TrainConfig, component: Any, field: str) -> Any:
    if "." not in field:
        return _value(component, field)
    part, _, name = field.partition(".")
    return _value(_value(config, part), name)


def _absolute(at: str, field: str) -> str:
    return field if "." in field else _joined(at, field)


def _joined(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _value(component: Any, name: str) -> Any:
    return {field.name: getattr(component, field.name) for field in fields(component)}[name]


def _is_default(component: Any, name: str) -> bool:
    field: Field[Any] = {field.name: field for field in fields(component)}[name]
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return bool(_value(component, name) == default)
