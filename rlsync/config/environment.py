"""What answers the model between its turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rlsync.errors import ConfigError

MESSAGE = "{message}"
"""Stands in environment.template for what the environment said."""


class EnvironmentKind(StrEnum):
    none = "none"
    """Nothing: a response is one turn."""
    calculator = "calculator"
    """Answers <<12*34>> with 408 (rlsync/environments/calculator.py)."""
    custom = "custom"
    """The user's class, environment.path=package.module:Class or folder/file.py:Class."""


class MessageRole(StrEnum):
    """As whom the environment speaks in a chat template."""

    tool = "tool"
    user = "user"


class Scored(StrEnum):
    """What of a conversation the reward functions read."""

    last_turn = "last_turn"
    """The model's last turn: its answer."""
    conversation = "conversation"
    """Everything after the prompt, the environment's messages included."""


@dataclass(kw_only=True, slots=True)
class EnvironmentConfig:
    kind: EnvironmentKind = EnvironmentKind.none
    path: str = ""
    """Of the class (environment.kind=custom)."""
    args: dict[str, Any] = field(default_factory=dict)
    """Its constructor's keyword arguments."""
    max_turns: int = 4
    """Most turns of the model in a conversation."""
    timeout_s: float = 10.0
    """Longest reset or step; what takes longer counts as failed."""
    parallel: int = 64
    """Conversations whose environments work at a time."""
    call_end: str = ""
    """Text of one token that ends a turn too, besides the tokenizer's own stop ids: the end of a call in a model
    that does not end its turn there. Engines see token ids alone, so a longer text cannot stop them."""
    role: MessageRole = MessageRole.tool
    """With data.chat=true; some chat templates know no tool."""
    template: str = MESSAGE
    """The environment's message as the model reads it."""
    scored: Scored = Scored.last_turn

    @property
    def present(self) -> bool:
        return self.kind is not EnvironmentKind.none

    def __post_init__(self) -> None:
        if self.kind is EnvironmentKind.custom and not self.path:
            raise ConfigError(
                "environment.path is empty, and environment=custom needs it: package.module:Class or file.py:Class"
            )
        if self.max_turns < 1 or self.timeout_s <= 0 or self.parallel < 1:
            raise ConfigError(
                f"environment.max_turns={self.max_turns}, environment.timeout_s={self.timeout_s}, "
                f"environment.parallel={self.parallel}: want at least one turn, a positive time and at least one "
                "conversation at a time"
            )
        if self.template.count(MESSAGE) != 1:
            raise ConfigError(
                f"environment.template={self.template!r}: want {MESSAGE} once in it, where the environment's message "
                "stands"
            )
