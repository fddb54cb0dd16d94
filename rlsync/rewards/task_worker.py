"""The job of a confined worker process for reward=task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reasoning_gym.factory import create_dataset

from rlsync.rewards.guarded_eval import install_guard


def make(task: tuple[str, dict[str, Any]]) -> Callable[[tuple[str, dict[str, Any]]], float]:
    """Make the job of a worker: f((completion, entry)) -> the score of reasoning-gym's task.

    Args:
        task: Name of the task, and its arguments.
    """
    name, arguments = task
    dataset = create_dataset(name, seed=0, size=1, **arguments)
    install_guard()
    return lambda request: float(dataset.score_answer(*request))
