"""Opens the source of problems that a configuration names."""

from __future__ import annotations

from dataclasses import replace

from rlsync.config.data import DataConfig, DataSource
from rlsync.data.file_source import read_file
from rlsync.data.gym_source import GymSource
from rlsync.data.hub_source import read_hub
from rlsync.data.mixture import MixtureSource
from rlsync.data.row_source import RowSource
from rlsync.data.source import ProblemSource
from rlsync.errors import error_context


def open_source(config: DataConfig) -> ProblemSource:
    """Open the source that `data.source` names.

    Raises:
        ConfigError: A value of the configuration is wrong.
        DataError: The data is missing or malformed.
    """
    if config.source is DataSource.mixture:
        return MixtureSource({name: _open_part(name, part, config) for name, part in config.parts.items()}, config)
    if config.source is DataSource.reasoning_gym:
        return GymSource(config)
    held_out = read_file(config.eval_path, "data.eval_path") if config.eval_path else None
    if config.source is DataSource.file:
        return RowSource(config, read_file(config.path, "data.path"), held_out)
    if config.eval_split:
        held_out = read_hub(config, config.eval_split, "data.eval_split")
    return RowSource(config, read_hub(config, config.hub_split, "data.hub_split"), held_out)


def _open_part(name: str, part: DataConfig, mixture: DataConfig) -> ProblemSource:
    shares = {"held_out_percent": mixture.held_out_percent, "warm_start_percent": mixture.warm_start_percent}
    with error_context(f"data.parts.{name}"):
        return open_source(replace(part, **shares))  # type: ignore[arg-type]
