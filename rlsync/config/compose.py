"""Hydra configs and overrides into one typed object, with errors that name the key and the nearest valid ones."""

from __future__ import annotations

import dataclasses
import difflib
import re

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
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
    _check_keys(rest)
    ConfigStore.instance().store(name=_SCHEMA, node=TrainConfig)
    search = [f"hydra.searchpath=[file://{shipped('recipes')}]", f"+{recipe}=recipe"] if recipe else []
    name = [f"run.name={recipe}"] if recipe and not any(o.startswith("run.name=") for o in rest) else []
    try:
        with initialize_config_dir(config_dir=str(shipped("configs")), version_base="1.3"):
            composed = compose(config_name="train", overrides=[*search, *name, *rest])
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    assert isinstance(config, TrainConfig)
    return config


def to_yaml(config: TrainConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def valid_keys() -> list[str]:
    """Every dotted key of a training run's configuration."""
    return _keys(TrainConfig, "")


def _check_keys(overrides: list[str]) -> None:
    """Raises ConfigError for an override of a key that does not exist (`+key=value` included)."""
    valid, groups = valid_keys(), group_options()
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        known = key in groups or any(key == v or v.startswith(f"{key}.") or key.startswith(f"{v}.") for v in valid)
        if not known:
            raise ConfigError(f"unknown key '{key}'.{_nearest(key, [*valid, *groups])}")


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
    """Hydra's error in one line that begins with the key."""
    cause = error.__cause__ or error
    missing = re.search(r"Could not find '([^']+)/([^']+)'", str(error))
    if missing:
        group, option = missing.groups()
        return f"{group}={option}: no such option. Valid: {', '.join(group_options().get(group, [])) or 'none'}"
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    return f"{key}: {lines[0]}" if key else lines[0]


def _nearest(name: str, valid: list[str]) -> str:
    leaf = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.6)
    near += [
        v for v in valid if v.rpartition(".")[2] in difflib.get_close_matches(leaf, [v.rpartition(".")[2]], cutoff=0.75)
    ]
    near = list(dict.fromkeys(near))[:4]
    return f" Nearest valid: {', '.join(near)}" if near else f" Valid: {', '.join(valid)}"
