"""The configuration's keys with their types, defaults, texts, choices, and the conditions under which they are read."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import takewhile
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from config_docstrings import attribute_texts, class_text

from rlsync.config.compose import compose_train
from rlsync.config.paths import group_options, shipped
from rlsync.config.reads import NEVER, READ, Condition
from rlsync.config.run import TrainConfig

_UNITS = {"_s": "in seconds", "_mib": "in MiB", "_percent": "in percent"}
_TYPES = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    list[str]: "list of texts",
    list[int]: "list of integers",
    dict[str, Any]: "dictionary",
    tuple[float, float]: "two numbers",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration."""

    name: str
    """Dotted key; NAME stands for a name that the user chooses."""
    type: str
    default: Any
    composed: Any
    """The value of `rlsync train` without arguments, which has the default options of all groups."""
    text: str
    choices: dict[str, str] = field(default_factory=dict)
    """The values of an enumeration with their meanings."""
    read_if: list[str] = field(default_factory=list)
    """Conditions that must all hold for the key to be read."""
    never: str = ""
    """Why the key is never read at this place; empty if it may be."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a configuration group."""

    name: str
    text: str
    """The comment at the beginning of its file."""
    values: dict[str, Any]
    """The values that its file sets. The value ... stands for a named part whose own values are not listed."""
    default: bool
    """Whether `rlsync train` without arguments uses it."""


@dataclass(frozen=True, slots=True)
class Section:
    """The keys of one component, or of a part that the user names."""

    name: str
    """Dotted name of the component; NAME stands for a name that the user chooses."""
    text: str
    keys: list[Key]
    options: list[Option] = field(default_factory=list)


def sections() -> list[Section]:
    """Return the components of the configuration in their order, the keys without a component first, parts last."""
    found = list(_sections(TrainConfig, "", compose_train([])))
    return sorted(found, key=lambda section: section.name.endswith(".NAME"))


def _sections(kind: type, at: str, composed: Any) -> Iterator[Section]:
    hints, keys, inner = get_type_hints(kind), [], []
    texts = attribute_texts(kind)
    for each in dataclasses.fields(kind):
        name, hint = f"{at}{each.name}", hints[each.name]
        value = getattr(composed, each.name, None)
        if dataclasses.is_dataclass(hint):
            inner += list(_sections(hint, f"{name}.", value))  # type: ignore[arg-type]
            continue
        keys.append(_key(kind, each, name, hint, value, texts.get(each.name, "")))
        if (part := _part(hint)) is not None:
            inner.append(_part_section(part, kind, name))
    yield Section(at.rstrip("."), class_text(kind), keys, _options(at.rstrip(".")))
    yield from inner


def _part(hint: Any) -> type | None:
    """Return the class of the named parts that a field holds; None if it holds none."""
    held = get_args(hint)[1] if get_origin(hint) is dict else None
    return held if isinstance(held, type) and dataclasses.is_dataclass(held) else None


def _part_section(part: type, owner: type, name: str) -> Section:
    """Return the section of a part, with the keys that no component has."""
    hints, texts, at = get_type_hints(part), attribute_texts(part), f"{name}.NAME"
    bases = {*part.__mro__[1:]} | {each for each in _components(TrainConfig) if each is part}
    known = {each.name for base in bases if dataclasses.is_dataclass(base) for each in dataclasses.fields(base)}
    keys = [
        _key(part, each, f"{at}.{each.name}", hints[each.name], None, texts.get(each.name, ""))
        for each in dataclasses.fields(part)
        if each.name not in known
    ]
    options = [dataclasses.replace(each, values=dict.fromkeys(each.values, ...)) for each in _options(name)]
    return Section(at, class_text(part), keys, options)


def _components(kind: type) -> Iterator[type]:
    for hint in get_type_hints(kind).values():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from (hint, *_components(hint))


def _key(kind: type, each: Any, name: str, hint: Any, composed: Any, text: str) -> Key:
    default = each.default_factory() if each.default is dataclasses.MISSING else each.default
    default = list(default) if isinstance(default, tuple) else default
    choices: dict[str, str] = {}
    for enum in (each for each in (hint, *get_args(hint)) if isinstance(each, type) and issubclass(each, StrEnum)):
        members = attribute_texts(enum)
        choices = {member.value: members.get(member.name, "") for member in enum}
        text = text or class_text(enum)
    conditions = [_condition(name, rule) for owner in kind.__mro__ for rule in READ.get(owner, {}).get(each.name, [])]
    never = next((why for pattern, why in NEVER if pattern.fullmatch(name)), "")
    typed = _type(hint) + _unit(name, hint)
    shown = default if composed is None or _part(hint) else composed
    return Key(name, typed, default, shown, text, choices, list(dict.fromkeys(conditions)), never)


def _type(hint: Any) -> str:
    if hint in _TYPES:
        return _TYPES[hint]
    if get_origin(hint) is dict:
        return "named parts"
    if not get_args(hint):
        return "one of the values below"
    inner = _type(next(each for each in get_args(hint) if each is not type(None)))
    return "list of the values below" if get_origin(hint) is list else f"{inner.replace(' or', ',')} or null"


def _unit(name: str, hint: Any) -> str:
    wanted = [unit for suffix, unit in _UNITS.items() if name.endswith(suffix) and hint in (int, float)]
    return f" {wanted[0]}" if wanted else ""


def _condition(name: str, rule: tuple[Condition, ...]) -> str:
    at = name.rpartition(".")[0]
    wanted = [_wanted(each.field if "." in each.field else f"{at}.{each.field}".lstrip("."), each) for each in rule]
    return " or ".join(wanted)


def _wanted(key: str, condition: Condition) -> str:
    """Return a condition as part of a sentence."""
    text = condition.wanted
    if text.startswith("="):
        values = [f"`{value}`" for value in re.split(r", | or ", text[1:])]
        return f"`{key}` is {' or '.join([', '.join(values[:-1]), values[-1]] if values[:-1] else values)}"
    if text.startswith(" other than "):
        return f"`{key}` is not `{text.removeprefix(' other than ')}`"
    return f"`{key}` is {text.strip(' ,')}"


def _options(group: str) -> list[Option]:
    chosen = yaml.safe_load((shipped("configs") / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    usual = {name: option for each in chosen if isinstance(each, dict) for name, option in each.items()}
    found = []
    for name in group_options().get(group, []):
        text = (shipped("configs") / group / f"{name}.yaml").read_text(encoding="utf-8")
        comments = [line[2:] for line in takewhile(lambda line: line.startswith("# "), text.splitlines())]
        found.append(Option(name, " ".join(comments), yaml.safe_load(text) or {}, usual.get(group) == name))
    return found
