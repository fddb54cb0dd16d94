"""Reward functions that the user names by their import path."""

from __future__ import annotations

from collections.abc import Callable

from rlsync.types import Problem
from rlsync.user_code import load_callable

RewardFunction = Callable[[str, Problem], float]
"""f(completion, problem)."""


def load_function(path: str) -> RewardFunction:
    """Import what reward.function names.

    Raises:
        ConfigError: as `load_callable`.
    """
    return load_callable(path, field="reward.function", signature="f(completion: str, problem: Problem) -> float")
