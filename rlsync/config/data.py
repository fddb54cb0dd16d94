"""Where problems come from and how they become prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from string import Formatter
from typing import Any

from rlsync.errors import ConfigError


class DataSource(StrEnum):
    """Where problems come from."""

    reasoning_gym = "reasoning_gym"
    """Procedural tasks of reasoning-gym, generated when they are needed."""
    file = "file"
    """A local .jsonl or .parquet file."""
    hub = "hub"
    """A data set of the Hugging Face hub."""
    mixture = "mixture"
    """Several sources by weight (data.parts)."""


class AnswerParser(StrEnum):
    """Which part of the answer column is the answer."""

    none = "none"
    """The whole column."""
    gsm8k = "gsm8k"
    """What comes after the last ####, without thousands separators."""
    boxed = "boxed"
    r"""The contents of the last \boxed{}."""


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Configuration of one source of problems, or of a mixture of several."""

    source: DataSource = DataSource.reasoning_gym
    task: str = "chain_sum"
    """Name of a reasoning-gym data set (data.source=reasoning_gym)."""
    task_args: dict[str, Any] = field(default_factory=dict)
    """Parameters of the reasoning-gym data set."""
    path: str = ""
    """File (data.source=file) or hub id (data.source=hub)."""
    eval_path: str = ""
    """Separate file of held-out problems; empty = a hash of the prompt decides which problems of `path` are held
    out."""
    subset: str | None = None
    """Configuration name of a hub data set that has several, such as `main` of openai/gsm8k; null = the default one."""
    hub_split: str = "train"
    """Split of the hub data set that has the training problems."""
    eval_split: str = ""
    """Separate hub split of held-out problems; empty = as with an empty eval_path."""
    prompt_column: str = "prompt"
    """Column of the prompt; a dotted path leads into a nested column, as messages.0.content does."""
    answer_column: str = "answer"
    """Column of the answer, or a dotted path, as reward_model.ground_truth is."""
    answer_parser: AnswerParser = AnswerParser.none
    template: str = "{question}"
    """Prompt text. Its fields are filled from the columns of the row, or from the task's metadata; {question} is the
    prompt column."""
    squeeze: bool = False
    """Remove spaces from reasoning-gym prompts, which shortens the sequences of a character tokenizer."""
    chat: bool = False
    """Format the prompt with the tokenizer's chat template, as a message of the user."""
    system_prompt: str = ""
    """System message of the chat template; empty = none."""
    chat_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the chat template besides the messages, for example {enable_thinking: false}."""
    keep_special_tokens: bool = False
    """Rewards and environments read the model's special tokens as text (Mistral's [TOOL_CALLS], DeepSeek's markers).
    The stop token at the end is always left out."""
    max_prompt_tokens: int = 512
    """Problems with longer prompts are left out; the run reports how many."""
    held_out_percent: int = 10
    """Percentage of problems, chosen by a hash of the prompt, that training never sees. A mixture's value applies to
    all its parts, so that a prompt is in the same split whatever part it comes from."""
    warm_start_percent: int = 30
    """Percentage of problems that only the tiny model's warm start sees; 0 for other models. A mixture's value applies
    to all its parts."""
    parts: dict[str, DataConfig] = field(default_factory=dict)
    """The parts of a mixture by name (data.source=mixture)."""
    weight: float = 1.0
    """Weight of a part: its share of the mixture's prompts, relative to the weights of the other parts."""

    @property
    def sources(self) -> dict[str, DataConfig]:
        """The parts of a mixture by name; data without parts is its own only source, under the name ""."""
        return self.parts or {"": self}

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each source by name."""
        return {name: part.weight for name, part in self.sources.items()}

    def check(self, name: str = "data", *, trains: bool = True) -> None:
        """Check the fields together.

        Args:
            name: Dotted name of this configuration, for messages.
            trains: Whether training problems are needed besides held-out ones.

        Raises:
            ConfigError: Values are out of range, or contradict each other.
        """
        self._check_splits(name, trains)
        if self.source is DataSource.mixture:
            self._check_mixture(name)
            return
        if self.parts:
            raise ConfigError(
                f"{name}.parts is set, but {name}.source={self.source} does not read it. Use {name}.source=mixture"
            )
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
                f"{name}.template={self.template!r}: {error}. Write a field as {{name}}, and double a literal brace"
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
                raise ConfigError(
                    f"{where}.source=mixture: a part of a mixture cannot be a mixture itself. List its parts in "
                    f"{name}.parts"
                )
            if not 0 < part.weight < math.inf:
                raise ConfigError(
                    f"{where}.weight={part.weight}: must be a positive number. To leave the part out, remove it "
                    f"from {name}.parts"
                )
            part.check(where)
