"""Rewrite command-line overrides in hydra's grammar.

Hydra interprets numbers, booleans, sweeps and escapes in a value. Here the schema decides instead: a value given to a
text field is that text, and free dictionaries (data.task_args, environment.args) take new keys without a plus sign.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser

from rlsync.config.fields import type_at
from rlsync.config.paths import group_options
from rlsync.errors import ConfigError

_ASSIGNMENT = re.compile(r"(\+\+|\+|)([^=@~+]+)=(.*)", re.DOTALL)
_CHOICE = re.compile(r"\+*([^=@~+]+)(@[^=]*)?=(.*)", re.DOTALL)
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_ITEM = re.compile(rf"\s*({_QUOTED.pattern}|[^,'\"]*)\s*(?:,|$)", re.DOTALL)
_ALARM = re.compile(r"\+{1,2}alarms\.([^.=@]+)[.=]")
_LARGEST = 10**300
"""Larger integers do not fit into a float, to which OmegaConf converts them for a float field."""
_PROSE = ("template", "system_prompt")
"""Names of the fields in whose values \\n is a line break, because a shell's quotes offer no easy way to write one."""


def chosen(override: str) -> tuple[str, str] | None:
    """Return group and option if the override chooses an option (`group=option`, `+group@package=option`), or None."""
    choice = _CHOICE.fullmatch(override)
    if choice is None or choice[1] not in group_options() or (not choice[2] and choice[3].lstrip().startswith("{")):
        return None
    return choice[1], choice[3].strip().strip("'\"")


def for_hydra(override: str) -> str:
    """Return the override in hydra's grammar, with quotes around texts and ++ before new keys of free dictionaries."""
    assignment = _ASSIGNMENT.fullmatch(override)
    if assignment is None or chosen(override):
        return override
    sign, key, value = assignment.groups()
    kind = type_at(key)
    if kind is str or (kind == str | None and value != "null"):
        return f"{sign}{key}={_as_text(key, value)}"
    if kind == list[str]:
        return f"{sign}{key}={_as_texts(value)}"
    if kind is Any or kind == dict[str, Any]:
        return f"++{key}={value}"
    return override


def with_new_alarms(overrides: list[str]) -> tuple[list[str], list[str]]:
    """Let +alarms.NAME.FIELD=VALUE add an alarm, although OmegaConf cannot make a typed part from single fields.

    Returns:
        The overrides without the plus signs, and overrides in front of them that add the alarms.
    """
    names, rest = [], []
    for override in overrides:
        added = _ALARM.match(override)
        names += [added[1]] if added else []
        rest.append(override.lstrip("+") if added else override)
    return rest, [f"+alarms/one@alarms.{name}=new" for name in dict.fromkeys(names)]


def settings(override: str) -> Iterator[str]:
    """Yield the dotted keys that an override in hydra's grammar sets; none if it chooses a group's option.

    Raises:
        ConfigError: A value in a dictionary is not text but belongs to a text field, or an integer is too large.
    """
    assignment = _ASSIGNMENT.fullmatch(override)
    if assignment is not None and not chosen(override):
        value = OverridesParser.create().parse_overrides([override])[0].value()
        yield from _keys_of(assignment[2], value)


def _keys_of(key: str, value: Any) -> Iterator[str]:
    kind = type_at(key)
    if isinstance(value, dict) and (dataclasses.is_dataclass(kind) or _has_named_parts(kind)):
        for name, part in value.items():
            yield from _keys_of(f"{key}.{name}", part)
        return
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise ConfigError(f"{key}: the value has more than 300 digits, which no field accepts")
    if kind in (str, str | None) and isinstance(value, bool | int | float):
        raise ConfigError(
            f"{key}={value}: {key} is a text, but within braces hydra reads this value as {type(value).__name__}. Put "
            "it in quotes"
        )
    yield key


def _has_named_parts(kind: Any) -> bool:
    return get_origin(kind) is dict and get_args(kind)[1] is not Any


def _as_text(key: str, value: str) -> str:
    if not _QUOTED.fullmatch(value):
        value = quoted(value)
    return _with_line_breaks(value) if key.rpartition(".")[2] in _PROSE else value


def _as_texts(value: str) -> str:
    """Quote the items of a list in brackets; any other value is left as it is, and hydra refuses it."""
    inner = value.strip()
    if not (inner.startswith("[") and inner.endswith("]")):
        return value
    inner, items = inner[1:-1].strip(), []
    while inner:
        item = _ITEM.match(inner)
        if item is None:
            return value
        text = item[1].strip()
        items.append(text if _QUOTED.fullmatch(text) else quoted(text))
        inner = inner[item.end() :]
    return f"[{','.join(items)}]"


def quoted(text: str) -> str:
    r"""Return the text in hydra's quotes, in which \' is a quote and only backslashes before a quote are doubled."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text)
    return f"'{escaped}'"


def _with_line_breaks(text: str) -> str:
    r"""Replace \n by a line break, and \\n by the two characters \n."""
    return re.sub(r"\\(\\n|n)", lambda found: "\n" if found[1] == "n" else "\\n", text)
