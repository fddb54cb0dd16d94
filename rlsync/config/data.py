"""Where problems come from and how they become prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rlsync.errors import ConfigError


class DataSource(StrEnum):
    reasoning_gym = "reasoning_gym"
    """Procedural tasks, made on the spot."""
    file = "file"
    """A local .jsonl or .parquet file."""
    hub = "hub"
    """A data set of the Hugging Face hub."""


@dataclass(kw_only=True, slots=True)
class DataConfig:
    source: DataSource = DataSource.reasoning_gym
    task: str = "chain_sum"
    """reasoning-gym data set (data.source=reasoning_gym)."""
    task_args: dict[str, Any] = field(default_factory=dict)
    """Its parameters."""
    path: str = ""
    """File (data.source=file) or hub id (data.source=hub)."""
    eval_path: str = ""
    """Separate file of held-out problems; empty = they are set apart from `path` by a hash of the prompt."""
    subset: str | None = None
    hub_split: str = "train"
    prompt_column: str = "prompt"
    answer_column: str = "answer"
    template: str = "{question}"
    """Prompt text, filled from the columns of the row, or of the task's metadata; {question} is the prompt column."""
    squeeze: bool = False
    """Remove spaces from reasoning-gym prompts: shorter sequences for a character tokenizer."""
    chat: bool = False
    """Put the prompt through the tokenizer's chat template as a user turn."""
    system_prompt: str = ""
    max_prompt_tokens: int = 512
    """Longer prompts are left out, and counted."""
    held_out_percent: int = 10
    """Share of problems, by a hash of the prompt, that training never sees."""
    warm_start_percent: int = 30
    """Share that only the tiny model's warm start sees; 0 for other models."""

    def __post_init__(self) -> None:
        if self.source is not DataSource.reasoning_gym and not self.path:
            raise ConfigError(f"data.path is empty, and data.source={self.source} needs it")
        if not 0 < self.held_out_percent + self.warm_start_percent < 100 or self.held_out_percent < 1:
            raise ConfigError(
                f"data.held_out_percent={self.held_out_percent} and data.warm_start_percent={self.warm_start_percent}: "
                "the first must be at least 1 and both together less than 100, so that training has problems left"
            )
