"""What a source of problems is, and which one the config names."""

from __future__ import annotations

from typing import Protocol

from rlsync.config.data import DataConfig, DataSource
from rlsync.data.file_source import read_file
from rlsync.data.gym_source import GymSource
from rlsync.data.hub_source import read_hub
from rlsync.data.row_source import RowSource
from rlsync.errors import ConfigError
from rlsync.types import Problem, Split


class ProblemSource(Protocol):
    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """Distinct problems of the split, the same for the same config, split and seed.

        A finite source returns all it has where `count` is more.

        Raises:
            DataError: the source has none, or cannot make as many.
        """
        ...

    def score(self, problem: Problem, completion: str) -> float:
        """The source's own scorer."""
        ...


def open_source(config: DataConfig) -> ProblemSource:
    """Open the source that `data.source` names.

    Raises:
        ConfigError: a value of the config is wrong.
        DataError: the data is missing or malformed.
    """
    if config.source is DataSource.reasoning_gym:
        if config.eval_path:
            raise ConfigError(
                f"data.eval_path={config.eval_path!r} has no effect with data.source=reasoning_gym, which sets "
                "problems apart by a hash of the prompt. Leave it empty, or use data.source=file"
            )
        return GymSource(config)
    rows = read_file(config.path, "data.path") if config.source is DataSource.file else read_hub(config)
    held_out = read_file(config.eval_path, "data.eval_path") if config.eval_path else None
    return RowSource(config, rows, held_out)
