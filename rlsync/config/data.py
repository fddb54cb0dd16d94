"""Where problems come from and how they become prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from string import Formatter
from typing import Any

from rlsync.errors import ConfigError


class DataSource(StrEnum):
    reasoning_gym = "reasoning_gym"
    """Procedural tasks, made on the spot."""
    file = "file"
    """A local .jsonl or .parquet file."""
    hub = "hub"
    """A data set of the Hugging Face hub."""
    mixture = "mixture"
    """Several of them by weight (data.parts)."""


class AnswerParser(StrEnum):
    """What of the answer column is the answer."""

    none = "none"
    """All of it."""
    gsm8k = "gsm8k"
    """What comes after the last ####, without thousands separators."""
    boxed = "boxed"
    r"""The contents of the last \boxed{}."""


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
    eval_split: str = ""
    """Separate hub split of held-out problems, as eval_path is a separate file."""
    prompt_column: str = "prompt"
    """Of a nested column a dotted name: messages.0.content."""
    answer_column: str = "answer"
    """Likewise: reward_model.ground_truth."""
    answer_parser: AnswerParser = AnswerParser.none
    template: str = "{question}"
    """Prompt text, filled from the columns of the row, or of the task's metadata; {question} is the prompt column."""
    squeeze: bool = False
    """Remove spaces from reasoning-gym prompts: shorter sequences for a character tokenizer."""
    chat: bool = False
    """Put the prompt through the tokenizer's chat template as a user turn."""
    system_prompt: str = ""
    chat_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the chat template besides the messages, for example {enable_thinking: false}."""
    keep_special_tokens: bool = False
    """Rewards and environments read the model's special tokens as text (Mistral's [TOOL_CALLS], DeepSeek's marks); the
    stop token at the end is left out all the same."""
    max_prompt_tokens: int = 512
    """Longer prompts are left out, and counted."""
    held_out_percent: int = 10
    """Share of problems, by a hash of the prompt, that training never sees. Of a mixture: that of all its parts, so
    that a prompt is in one split whatever part it comes from."""
    warm_start_percent: int = 30
    """Share that only the tiny model's warm start sees; 0 for other models. Of a mixture: that of all its parts."""
    parts: dict[str, DataConfig] = field(default_factory=dict)
    """The parts of a mixture by name (data.source=mixture)."""
    weight: float = 1.0
    """Of a part: its share of the mixture's prompts, relative to the other parts' weights."""

    @property
    def sources(self) -> dict[str, DataConfig]:
        """The parts of a mixture by name; data without parts is its own only source, under the name ""."""
        return self.parts or {"": self}

    @property
    def weights(self) -> dict[str, float]:
        return {name: part.weight for name, part in self.sources.items()}

    def check(self, name: str = "data", *, trains: bool = True) -> None:
        """Raises ConfigError for what cannot be.

        Args:
            name: dotted name of this configuration, for messages.
            trains: training problems are wanted besides held-out ones.
        """
        self._check_splits(name, trains)
        if self.source is DataSource.mixture:
            self._check_mixture(name)
            return
        if self.parts:
            raise ConfigError(f"{name}.parts is set, but {name}.source={self.source} does not read it; use mixture")
        self._check_template(name)
        if self.source is not DataSource.reasoning_gym and not self.path:
            raise ConfigError(f"{name}.path is empty, and {name}.source={self.source} needs it")
        if self.source is DataSource.hub and self.eval_split and self.eval_path:
            raise ConfigError(
                f"{name}.eval_split={self.eval_split} and {name}.eval_path={self.eval_path} both name the held-out "
                "problems; leave one of them empty"
            )

    def _check_template(self, name: str) -> None:
        try:
            fields = [field for _, field, _, _ in Formatter().parse(self.template) if field]
        except ValueError as error:
            raise ConfigError(
                f"{name}.template={self.template!r}: {error}. Write fields as {{name}} and a literal brace twice"
            ) from error
        if not fields:
            raise ConfigError(
                f"{name}.template={self.template!r} has no {{field}}, so every prompt would be the same. Use "
                "{question}, or columns of the row"
            )

    def _check_splits(self, name: str, trains: bool) -> None:
        held_out, both = self.held_out_percent, self.held_out_percent + self.warm_start_percent
        if held_out < 1 or self.warm_start_percent < 0 or both > (99 if trains else 100):
            raise ConfigError(
                f"{name}.held_out_percent={held_out} and {name}.warm_start_percent={self.warm_start_percent}: the "
                "first must be at least 1, the second at least 0, and both together "
                + ("less than 100, so that training has problems left" if trains else "at most 100")
            )

    def _check_mixture(self, name: str) -> None:
        if not self.parts:
            raise ConfigError(
                f"{name}.parts is empty, and {name}.source=mixture needs it: add parts, for example "
                f"+data@{name}.parts.sums=chain_sum"
            )
        for part_name, part in self.parts.items():
            where = f"{name}.parts.{part_name}"
            if part.source is DataSource.mixture:
                raise ConfigError(f"{where}.source=mixture: a mixture in a mixture; list its parts in {name}.parts")
            if not 0 < part.weight < math.inf:
                raise ConfigError(
                    f"{where}.weight={part.weight}: must be a positive number. To leave the part out, remove it "
                    f"from {name}.parts"
                )
            part.check(where)
