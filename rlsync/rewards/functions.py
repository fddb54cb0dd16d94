"""Load the user's reward functions, which are named by import path or file."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from threading import Thread
from typing import Any

from rlsync.config.reward import RewardFunctionConfig
from rlsync.data.problem import Problem
from rlsync.user_calls import call_bounded, too_late
from rlsync.user_code import check_call, load_callable

RewardFunction = Callable[[str, Problem], float]
"""f(completion, problem) returns the reward."""
BatchFunction = Callable[[list[str], list[Problem]], Sequence[float]]
"""f(completions, problems) returns one reward for each completion."""

_FIELD = "reward.timeout_s"


def load_function(config: RewardFunctionConfig) -> Callable[..., Any]:
    """Load reward.function as a plain function with the time limit reward.timeout_s.

    Raises:
        ConfigError: As find_function.
    """
    function = find_function(config)
    if _is_async(function):
        return _Awaited(function, config.timeout_s)
    return _bounded(function, config.timeout_s) if config.timeout_s else function


def is_async(config: RewardFunctionConfig) -> bool:
    """Whether reward.function is `async def`, or an object whose `__call__` is."""
    return _is_async(find_function(config))


def find_function(config: RewardFunctionConfig) -> Callable[..., Any]:
    """Load the callable that reward.function names.

    Raises:
        ConfigError: As load_callable, or the function does not accept a completion and a problem.
    """
    one, several = "completion: str, problem: Problem", "completions: list[str], problems: list[Problem]"
    signature = f"f({several}) -> list[float] (reward.batched=true)" if config.batched else f"f({one}) -> float"
    function = load_callable(config.function, field="reward.function", signature=signature)
    what = ("completions", "problems") if config.batched else ("completion", "problem")
    check_call(function, what, {}, field=f"reward.function={config.function!r}", fix=f"It must be {signature}")
    return function


def one_by_one(function: RewardFunction) -> BatchFunction:
    """Turn a function of one sample into a function of a batch."""
    return lambda completions, problems: [function(c, p) for c, p in zip(completions, problems, strict=True)]


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _bounded(function: Callable[..., Any], timeout_s: float) -> Callable[..., Any]:
    return lambda *texts: call_bounded(partial(function, *texts), timeout_s=timeout_s, field=_FIELD)


class _Awaited:
    """Makes an async function callable from threads. All calls share one event loop, so they can share clients."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Any]], timeout_s: float) -> None:
        self._function, self._timeout_s = function, timeout_s
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, daemon=True, name="async-reward").start()

    def __call__(self, *texts: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(self._call(*texts), self._loop).result()

    async def _call(self, *texts: Any) -> Any:
        if not self._timeout_s:
            return await self._function(*texts)
        timer = asyncio.timeout(self._timeout_s)
        try:
            async with timer:
                return await self._function(*texts)
        except TimeoutError:
            if timer.expired():
                raise too_late(_FIELD, self._timeout_s) from None
            raise
