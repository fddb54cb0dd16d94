"""Run the user's reward function in worker processes (reward.isolation=process)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlsync.config.reward import RewardFunctionConfig
from rlsync.errors import ConfigError
from rlsync.rewards.cores import usable_cores
from rlsync.rewards.functions import find_function, is_async
from rlsync.rewards.number import number
from rlsync.rewards.worker_host import WorkerKind
from rlsync.rewards.workers import WorkerPool, WorkerTimeoutError


def in_processes(config: RewardFunctionConfig) -> Callable[..., Any]:
    """Return a function that calls reward.function in worker processes. A call longer than reward.timeout_s is killed.

    Raises:
        ConfigError: The function cannot be loaded, or is `async def`.
    """
    if is_async(config):
        raise ConfigError(
            f"reward.function={config.function!r} is async, but reward.isolation=process calls plain functions only. "
            "Use reward.isolation=thread, where async calls share one event loop"
        )
    kind = WorkerKind(maker="rlsync.rewards.function_worker:make", argument=config, cpu_s=0.0, made_in_host=False)
    pool = WorkerPool(kind, usable_cores(), wall_s=config.timeout_s)

    def call(completions: Any, problems: Any) -> Any:
        try:
            return pool.call((completions, problems))
        except WorkerTimeoutError as error:
            raise TimeoutError(f"took longer than reward.timeout_s={config.timeout_s:g}, and was killed") from error

    return call


def make(config: RewardFunctionConfig) -> Callable[[tuple[Any, Any]], Any]:
    """Make the job of a worker, which calls the function and converts its results to floats."""
    function = find_function(config)

    def score(request: tuple[Any, Any]) -> Any:
        values = function(*request)
        return [number(value) for value in values] if config.batched else number(values)

    return score
