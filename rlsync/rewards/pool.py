"""A pool of threads for scoring."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Runs calls in the order of their submission, `threads` at a time.

    Unlike the threads of concurrent.futures, these do not prevent the process from ending if a call hangs.
    """

    def __init__(self, threads: int) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], T], Future[T]] | None] = SimpleQueue()
        self._threads, self._closed = threads, False
        for _ in range(threads):
            Thread(target=self._work, daemon=True, name="scoring").start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue a call, and return the future of its result."""
        future: Future[T] = Future()
        self._calls.put((call, future))
        return future

    def close(self) -> None:
        """End the threads after their current calls; queued calls are dropped."""
        self._closed = True
        for _ in range(self._threads):
            self._calls.put(None)

    def _work(self) -> None:
        while (waiting := self._calls.get()) is not None and not self._closed:
            call, future = waiting
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  (the future passes on whatever the call raises)
                future.set_exception(error)
