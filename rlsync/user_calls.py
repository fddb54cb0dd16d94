"""Calls of the user's code with a time limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def call_each(
    calls: Sequence[Callable[[], T]], *, timeout_s: float, parallel: int, field: str
) -> list[T | BaseException]:
    """Run calls in threads, and return what each call returned or raised.

    A thread cannot be ended: the thread of a call that hangs keeps running, at most until the process ends.

    Args:
        calls: Functions without arguments.
        timeout_s: Longest time of a call in seconds.
        parallel: Number of calls that run at the same time.
        field: The configuration field of the time limit, for messages.

    Returns:
        Results in the order of the calls: the value, the exception, or a TimeoutError for a call that took longer.
    """
    results: list[T | BaseException] = []
    for begin in range(0, len(calls), parallel):
        futures = [_start(call) for call in calls[begin : begin + parallel]]
        _, late = wait(futures, timeout=timeout_s)
        for future in futures:
            results.append(too_late(field, timeout_s) if future in late else future.exception() or future.result())
    return results


def call_bounded(call: Callable[[], T], *, timeout_s: float, field: str) -> T:
    """Run one call as `call_each` does, and return its value.

    Raises:
        TimeoutError: The call took longer. Exceptions of the call itself are raised as they are.
    """
    (result,) = call_each([call], timeout_s=timeout_s, parallel=1, field=field)
    if isinstance(result, BaseException):
        raise result
    return result


def too_late(field: str, timeout_s: float) -> TimeoutError:
    """Make the error for a call that took longer than the value of a configuration field."""
    return TimeoutError(f"took longer than {field}={timeout_s:g}")


def _start(call: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  (the user's code may raise anything, even SystemExit)
            future.set_exception(error)

    Thread(target=run, daemon=True, name="bounded-call").start()
    return future
