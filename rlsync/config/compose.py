"""Compose hydra configs and overrides into one typed object; errors name the key and the nearest valid ones."""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlsync.config.alarms import AlarmConfig
from rlsync.config.fields import valid_keys
from rlsync.config.numbers import check_values
from rlsync.config.overrides import chosen, for_hydra, quoted, settings, with_new_alarms
from rlsync.config.paths import group_options, recipe_names, shipped
from rlsync.config.reads import shown
from rlsync.config.run import TrainConfig
from rlsync.config.unread import check_chosen, check_read
from rlsync.errors import ConfigError, first_line, unreadable
from rlsync.redact import redacted

_SCHEMA = "train_schema"
_NO_SUCH_DATA = re.compile(
    r"not a subclass of .?DataConfig|^eval\.sets\..* not in struct|^data\.parts\..* not in struct"
)
_NO_SUCH_ALARM = re.compile(r"alarms\.([^.:]+): Key '\1' is not in struct")
_COMPONENTS = f" Keys begin with {', '.join(field.name for field in fields(TrainConfig))}; see `rlsync train --help`"
_SUFFIX = {"train": "", "eval": "_eval"}
"""Suffix of the run's name, so that an evaluation does not write into the training run's folder."""


def compose_train(overrides: list[str]) -> TrainConfig:
    """Compose the configuration of a training run.

    Args:
        overrides: `recipe=NAME`, group choices `model=huggingface` and values `trainer.lr=1e-5`; the last one wins.
            `model.path=FOLDER` without a choice of the group `model` selects a Hugging Face model, whatever model the
            recipe has.

    Raises:
        ConfigError: A key, group or recipe is unknown, a value has the wrong type, or values contradict each other.
    """
    return _compose("train", overrides)


def compose_eval(overrides: list[str]) -> TrainConfig:
    """Compose the configuration of an evaluation, which has the keys of a training run and reads what rollouts need.

    Args:
        overrides: As for `compose_train`.

    Raises:
        ConfigError: As for a training run, or there is nothing to evaluate.
    """
    config = _compose("eval", [*overrides, "rollout.sleep=false"])  # there is no trainer to sleep for
    if config.eval.problems == 0:
        raise ConfigError("eval.problems=0 leaves nothing to evaluate. Give the number of held-out problems of a set.")
    return config


def _compose(root: str, overrides: list[str]) -> TrainConfig:
    """Compose configs/<root>.yaml, the recipe and the overrides."""
    recipe, rest = _take_recipe(overrides)
    keys = {override.lstrip("+").partition("=")[0] for override in rest}
    if "model.path" in keys and not keys & {"model", "model.source"}:
        rest = ["model=huggingface", *rest]
    _check_keys(rest)
    rest, alarms = with_new_alarms([for_hydra(override) for override in rest])
    _store_schema()
    recipes = quoted(f"file://{shipped('recipes')}")
    search = [f"hydra.searchpath=[{recipes}]", f"+{recipe}=recipe"] if recipe else []
    named = any(o.startswith("run.name=") for o in rest)
    name = [f"run.name={quoted(recipe + _SUFFIX[root])}"] if recipe and not named else []
    name += [f"run.recipe={quoted(recipe)}"] if recipe else []
    try:
        said = [key for override in rest for key in settings(override)]
        with initialize_config_dir(config_dir=str(shipped("configs")), version_base="1.3"):
            composed = compose(config_name=root, overrides=[*search, *name, *alarms, *rest])
        config = OmegaConf.to_object(composed)
    except OverrideParseException as error:
        raise ConfigError(_misread(error.override)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    assert isinstance(config, TrainConfig)
    check_values(config)
    check_read(config, said)
    for override in rest:
        if "@" not in override and (choice := chosen(override)):
            check_chosen(config, override, _option_keys(*choice))
    return config


def load_saved(path: Path) -> TrainConfig:
    """Return the configuration that a run has written to its config.yaml.

    Raises:
        ConfigError: The file is missing, or is not a configuration of this version of rlsync.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(path))
        config = OmegaConf.to_object(merged)
    except (OSError, yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        why = first_line(error)
        raise ConfigError(f"{path} is not the configuration of a run ({why}). Give the folder of a run.") from error
    assert isinstance(config, TrainConfig)
    return config


@cache
def _store_schema() -> None:
    ConfigStore.instance().store(name=_SCHEMA, node=TrainConfig)


def to_yaml(config: TrainConfig) -> str:
    """Return the configuration as YAML, without secrets in URLs, as it is shown and written.

    Of an alarm only the fields that differ from their defaults are written.
    """
    values = OmegaConf.structured(config)
    short = {name: _not_default(alarm) for name, alarm in config.alarms.items()}
    OmegaConf.set_struct(values, False)
    container = OmegaConf.to_container(values, enum_to_str=True)
    assert isinstance(container, dict)
    return redacted(OmegaConf.to_yaml(OmegaConf.create({**container, "alarms": short})))


def _not_default(alarm: AlarmConfig) -> dict[str, Any]:
    values, defaults = asdict(alarm), asdict(AlarmConfig())
    return {key: value for key, value in values.items() if value != defaults[key]}


@dataclass(slots=True, frozen=True)
class Difference:
    """A key whose value has changed since an earlier part of the run."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


def differences(saved: Path, config: TrainConfig) -> list[Difference]:
    """Compare a configuration with a saved one (YAML). Keys under run, telemetry, alarms and cluster are not compared.

    Raises:
        ConfigError: The file is missing, or is not a configuration.
    """
    new = _flat(yaml.safe_load(to_yaml(config)))
    try:
        old = _flat(yaml.safe_load(saved.read_text(encoding="utf-8")))
        if not old.keys() & new.keys():
            raise ValueError("none of its keys is a key of a configuration")
    except (OSError, ValueError, yaml.YAMLError) as error:
        why, weights = str(error).splitlines()[0], f"{saved.parent}/checkpoints/step_N"
        raise unreadable(saved, "the run's configuration", why, weights) from error
    keys = (key for key in old | new if key.partition(".")[0] not in ("run", "telemetry", "alarms", "cluster"))
    return [Difference(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _check_keys(overrides: list[str]) -> None:
    """Raise ConfigError for a key or an option of a group that does not exist (`+key=value` included)."""
    valid, groups = valid_keys(), group_options()
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        group, _, package = key.partition("@")  # data@eval.sets.mine=file puts an option of the group at that key
        if package and group in groups:
            key = package
        known = key in groups or any(key == v or v.startswith(f"{key}.") or key.startswith(f"{v}.") for v in valid)
        if not known:
            raise ConfigError(f"unknown key {key!r}.{_nearest(key, [*valid, *groups]) or _COMPONENTS}")
        if group in groups and override.startswith("~"):
            raise ConfigError(f"{override}: a group cannot be left out; choose one of its options, {group}=OPTION")
        choice = chosen(override)
        if choice and choice[1] not in groups[choice[0]]:
            options = ", ".join(groups[choice[0]])
            raise ConfigError(f"{choice[0]}={shown(choice[1])}: no such option. Valid: {options}")


def _option_keys(group: str, option: str) -> list[str]:
    """Return the dotted keys that an option's file sets."""
    file = shipped("configs") / group / f"{option}.yaml"
    return list(_flat(yaml.safe_load(file.read_text(encoding="utf-8")), group))


def _alarm_names() -> list[str]:
    """Return the names of the alarms of every run."""
    return list(yaml.safe_load((shipped("configs") / "alarms/default.yaml").read_text(encoding="utf-8")))


def _take_recipe(overrides: list[str]) -> tuple[str | None, list[str]]:
    named = [o.partition("=")[2] for o in overrides if o.startswith("recipe=")]
    if named and named[-1] not in recipe_names():
        near = _nearest(named[-1], recipe_names()) or f" Valid: {', '.join(recipe_names())}"
        raise ConfigError(f"recipe={shown(named[-1])}: no such recipe.{near}")
    return named[-1] if named else None, [o for o in overrides if not o.startswith("recipe=")]


def _explain(error: Exception) -> str:
    """Return hydra's error as one line that begins with the key."""
    cause = error.__cause__ or error
    ambiguous = re.search(r"Ambiguous value for argument '(.*)'", str(error))
    if ambiguous:
        return _misread(ambiguous[1])
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    line = f"{key}: {lines[0]}" if key else lines[0]
    if "missing mandatory value" in line:
        return f"{key} has no value. Give one: {key}=VALUE"
    if "Interpolation" in line:
        return f"{line}. ${{...}} stands for another key's value; to write these characters as text, use \\${{...}}"
    if "is not a ListConfig" in line:
        return f"{line.rstrip('.')}; write a list in brackets, {key}=[...]"
    if no_alarm := _NO_SUCH_ALARM.match(line):
        names = _alarm_names()
        near = difflib.get_close_matches(no_alarm[1], names, n=2)
        some = f"Nearest: {', '.join(near)}" if near else f"Those of alarms=default: {', '.join(names)}"
        return (
            f"{key}: there is no alarm {no_alarm[1]}. {some}. To add one, write "
            f"+alarms.{no_alarm[1]}.metric=KEY +alarms.{no_alarm[1]}.above=NUMBER"
        )
    if _NO_SUCH_DATA.search(line):
        options = ", ".join(group_options()["data"])
        added = "with +data@eval.sets.NAME=OPTION or +data@data.parts.NAME=OPTION"
        return f"{key}: this set or part does not exist yet; add it first {added}. Options: {options}"
    if "@" in line and line.startswith("Could not override"):
        return f"{line} To add a set or a part, write + in front: +data@eval.sets.NAME=OPTION"
    return line


def _misread(override: str) -> str:
    key, is_value, value = override.lstrip("+").partition("=")
    if not is_value:
        return f"{override}: write an override as key=value"
    return (
        f"{key}={value}: hydra gives this value a special meaning. To pass it as text, put it in quotes that the shell "
        f"does not remove: '{key}=\"{value}\"'. Write a list as {key}=[...]"
    )


def _nearest(name: str, valid: list[str]) -> str:
    leaf = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.6)
    near += [
        v for v in valid if v.rpartition(".")[2] in difflib.get_close_matches(leaf, [v.rpartition(".")[2]], cutoff=0.75)
    ]
    near = list(dict.fromkeys(near))[:4]
    return f" Nearest valid: {', '.join(near)}" if near else ""
