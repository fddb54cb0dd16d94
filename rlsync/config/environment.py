"""Configuration of the environment, which answers the model between its turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rlsync.errors import ConfigError

MESSAGE = "{message}"
"""Placeholder in environment.template for the environment's message."""


class EnvironmentKind(StrEnum):
    """Which environment answers the model."""

    none = "none"
    """No environment: a response is one turn."""
    calculator = "calculator"
    """Answers <<12*34>> with 408 (rlsync/environments/calculator.py)."""
    custom = "custom"
    """The user's class, environment.path=package.module:Class or folder/file.py:Class."""


class MessageRole(StrEnum):
    """Role of the environment's messages in a chat template."""

    tool = "tool"
    """A result of a tool; the chat template must know this role."""
    user = "user"
    """A message of the user, which every chat template knows."""


class Scored(StrEnum):
    """Which part of a conversation the reward functions read."""

    last_turn = "last_turn"
    """The model's last turn, which is its answer."""
    conversation = "conversation"
    """Everything after the prompt, the environment's messages included."""


@dataclass(kw_only=True, slots=True)
class EnvironmentConfig:
    """Configuration of the environment."""

    kind: EnvironmentKind = EnvironmentKind.none
    path: str = ""
    """Import path or file of the class (environment.kind=custom)."""
    args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class's constructor."""
    max_turns: int = 4
    """Most turns of the model in a conversation."""
    timeout_s: float = 10.0
    """Longest time of one call of `reset` or `step`, in seconds; a call that takes longer counts as failed."""
    parallel: int = 64
    """Most environment calls that run at the same time, each of another conversation."""
    call_end: str = ""
    """Text of one token that ends a turn, besides the tokenizer's own stop ids. It marks the end of a call for a model
    that does not end its turn there. Engines see only token ids, so a text of several tokens cannot stop them."""
    role: MessageRole = MessageRole.tool
    """Role of the environment's messages with data.chat=true; some chat templates have no role `tool`."""
    template: str = MESSAGE
    """Text that the model reads as the environment's message."""
    scored: Scored = Scored.last_turn

    @property
    def present(self) -> bool:
        """Whether there is an environment."""
        return self.kind is not EnvironmentKind.none

    def __post_init__(self) -> None:
        if self.kind is EnvironmentKind.custom and not self.path:
            raise ConfigError(
                "environment.path is empty, and environment=custom needs it. Give package.module:Class or file.py:Class"
            )
        if self.max_turns < 1 or self.timeout_s <= 0 or self.parallel < 1:
            raise ConfigError(
                f"environment.max_turns={self.max_turns}, environment.timeout_s={self.timeout_s}, "
                f"environment.parallel={self.parallel}: max_turns and parallel must be at least 1, and timeout_s must "
                "be positive"
            )
        if self.template.count(MESSAGE) != 1:
            raise ConfigError(
                f"environment.template={self.template!r}: must contain {MESSAGE} exactly once, in the place of the "
                "environment's message"
            )
