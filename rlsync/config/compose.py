"""Hydra configs and overrides into one typed object, with errors that name the key and the nearest valid ones."""

from __future__ import annotations

import dataclasses
import difflib
import re

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlsync.config.paths import group_options, recipe_names, shipped
from rlsync.config.run import TrainConfig
from rlsync.errors import ConfigError

_SCHEMA = "train_schema"


def compose_train(overrides: list[str]) -> TrainConfig:
    """The configuration of a training run.

    Args:
        overrides: `recipe=NAME`, group choices `model=huggingface` and values `trainer.lr=1e-5`; the last one wins.
    Raises:
        ConfigError: an unknown key, group or recipe, a value of the wrong type, or a rule that joins fields is broken.
    """
    recipe, rest = _take_recipe(overrides)
    ConfigStore.instance().store(name=_SCHEMA, node=TrainConfig)
    search = [f"hydra.searchpath=[file://{shipped('recipes')}]", f"+{recipe}=recipe"] if recipe else []
    name = [f"run.name={recipe}"] if recipe and not any(o.startswith("run.name=") for o in rest) else []
    try:
        with initialize_config_dir(config_dir=str(shipped("configs")), version_base="1.3"):
            composed = compose(config_name="train", overrides=[*search, *name, *rest])
        return _typed(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error


def to_yaml(config: TrainConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def valid_keys() -> list[str]:
    """Every dotted key of a training run's configuration."""
    return _keys(TrainConfig, "")


def _typed(composed: DictConfig) -> TrainConfig:
    config = OmegaConf.to_object(composed)
    assert isinstance(config, TrainConfig)
    return config


def _take_recipe(overrides: list[str]) -> tuple[str | None, list[str]]:
    chosen = [o.partition("=")[2] for o in overrides if o.startswith("recipe=")]
    if chosen and chosen[-1] not in recipe_names():
        raise ConfigError(f"recipe={chosen[-1]}: no such recipe.{_nearest(chosen[-1], recipe_names())}")
    return chosen[-1] if chosen else None, [o for o in overrides if not o.startswith("recipe=")]


def _keys(schema: type, prefix: str) -> list[str]:
    keys = []
    for field in dataclasses.fields(schema):
        factory = field.default_factory
        if isinstance(factory, type) and dataclasses.is_dataclass(factory):
            keys += _keys(factory, f"{prefix}{field.name}.")
        else:
            keys.append(prefix + field.name)
    return keys


def _explain(error: Exception) -> str:
    text = str(error)
    cause = error.__cause__ or error
    full_key = getattr(cause, "full_key", None) or ""
    unknown = re.search(r"Key '([^']+)' (?:is )?not in|Could not override '([^']+)'", f"{text}\n{cause}")
    if unknown and ("not in" in f"{text}{cause}"):
        key = full_key or unknown.group(2) or unknown.group(1)
        return f"unknown key '{key}'.{_nearest(key, valid_keys())}"
    missing_group = re.search(r"Could not find '([^']+)/([^']+)'", text)
    if missing_group:
        group, option = missing_group.groups()
        options = group_options().get(group, [])
        return f"{group}={option}: no such option. Valid: {', '.join(options) or 'none'}"
    missing_override = re.search(r"Could not override '([^']+)'", text)
    if missing_override:
        return f"unknown key '{missing_override.group(1)}'.{_nearest(missing_override.group(1), valid_keys())}"
    lines = [line.strip() for line in f"{cause}".splitlines() if line.strip()]
    place = f"{full_key}: " if full_key else ""
    return place + lines[0]


def _nearest(name: str, valid: list[str]) -> str:
    leaf = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.6)
    near += [
        v for v in valid if v.rpartition(".")[2] in difflib.get_close_matches(leaf, [v.rpartition(".")[2]], cutoff=0.75)
    ]
    near = list(dict.fromkeys(near))[:4]
    return f" Nearest valid: {', '.join(near)}" if near else f" Valid: {', '.join(valid)}"
