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
    code = "code"
    """Generated Python against the tests in the problem's answer, run in a sandbox (rewards/code_reward.py)."""
    function = "function"
    """A Python function, reward.function=package.module:name."""


@dataclass(kw_only=True, slots=True)
class RewardConfig:
    kind: RewardKind = RewardKind.task
    function: str = ""
    """`package.module:name` of f(completion: str, problem: Problem) -> float (reward.kind=function)."""
    code_timeout_s: float = 5.0
    """Longest run of a program on one test."""
    code_memory_mib: int = 512
    """Address space of a program."""
    code_partial: bool = False
    """Reward the share of tests passed, in place of all or nothing."""
    shuffle: bool = False
    """Control: permute the rewards of a step among its samples, so that they say nothing."""

    def __post_init__(self) -> None:
        if self.kind is RewardKind.function and not self.function:
            raise ConfigError("reward.function is empty, and reward.kind=function needs it: package.module:name")
        if self.code_timeout_s <= 0 or self.code_memory_mib < 64:
            raise ConfigError(
                f"reward.code_timeout_s={self.code_timeout_s}, reward.code_memory_mib={self.code_memory_mib}: want a "
                "positive time and at least 64 MiB, which Python itself needs"
            )
