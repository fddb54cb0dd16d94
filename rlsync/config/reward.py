"""How a response is scored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.errors import ConfigError


class RewardKind(StrEnum):
    task = "task"
    """The data source's own scorer (reasoning-gym's; exact match for files and hub data)."""
    exact = "exact"
    """1 if the stripped response is the answer, letter for letter, else 0."""
    math_verify = "math_verify"
    """Symbolic comparison of mathematical answers."""
    function = "function"
    """A Python function, reward.function=package.module:name."""


@dataclass(kw_only=True, slots=True)
class RewardConfig:
    kind: RewardKind = RewardKind.task
    function: str = ""
    """`package.module:name` of f(completion: str, problem: Problem) -> float (reward.kind=function)."""
    shuffle: bool = False
    """Control: permute the rewards of a step among its samples, so that they say nothing."""

    def __post_init__(self) -> None:
        if self.kind is RewardKind.function and not self.function:
            raise ConfigError("reward.function is empty, and reward.kind=function needs it: package.module:name")
