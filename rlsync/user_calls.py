"""Calls of the user's code that take at most so long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def call_each(
    calls: Sequence[Callable[[], T]], *, timeout_s: float, parallel: int, field: str
) -> list[T | BaseException]:
    """What each call returned or raised, in order; TimeoutError where it took longer than `timeout_s`.

    A thread cannot be ended: that of a call which hangs is left to itself, and ends with the process at the latest.

    Args:
        parallel: calls at a time.
        field: of the configuration, that bounds them; for messages.
    """
    results: list[T | BaseException] = []
    for begin in range(0, len(calls), parallel):
        futures = [_start(call) for call in calls[begin : begin + parallel]]
        _, late = wait(futures, timeout=timeout_s)
        for future in futures:
            results.append(too_late(field, timeout_s) if future in late else future.exception() or future.result())
    return results


def call_bounded(call: Callable[[], T], *, timeout_s: float, field: str) -> T:
    """What the call returns, as `call_each`.

    Raises:
        TimeoutError: it took longer; or whatever it raises.
    """
    (result,) = call_each([call], timeout_s=timeout_s, parallel=1, field=field)
    if isinstance(result, BaseException):
        raise result
    return result


def too_late(field: str, timeout_s: float) -> TimeoutError:
    return TimeoutError(f"took longer than {field}={timeout_s:g}")


def _start(call: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # a tool may even call sys.exit
            future.set_exception(error)

    Thread(target=run, daemon=True, name="bounded-call").start()
    return future
