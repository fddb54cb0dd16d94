"""Symbolic comparison of mathematical answers."""

from __future__ import annotations

import logging
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Lock

from rlsync.rewards.math_worker import BAD_GOLD, serve
from rlsync.types import Problem

logger = logging.getLogger(__name__)

SECONDS = 10.0
"""Longest that one comparison may take; what takes longer is a wrong answer."""


class MathReward:
    """1.0 if math-verify finds the completion's answer equal to the problem's, else 0.0.

    math-verify has no bound on time but SIGALRM, which only a main thread can use, and `9^{9^{9}}` from a
    model keeps sympy busy for ever. So it runs in a process of its own, which can be ended.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._worker: tuple[BaseProcess, Connection] | None = None

    def __call__(self, completion: str, problem: Problem) -> float:
        """Score one completion.

        Raises:
            ValueError: the problem's answer holds no mathematics.
            RuntimeError: the process died, for want of memory perhaps.
        """
        with self._lock:
            equal = self._compare(problem.answer, completion)
        if equal == BAD_GOLD:
            raise ValueError(f"math-verify finds no mathematics in the problem's answer {problem.answer!r}")
        return float(equal is True)

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._worker is not None:
            process, connection = self._worker
            connection.close()
            process.kill()
            process.join()
            self._worker = None

    def _compare(self, gold: str, completion: str) -> bool | str:
        try:
            connection = self._connect()
            connection.send((gold, completion))
            if connection.poll(self._seconds):
                reply: bool | str = connection.recv()
                return reply
        except (EOFError, OSError) as error:
            self.close()
            raise RuntimeError("the math-verify process died") from error
        self.close()
        logger.warning("math-verify took over %g s on %.300r; the sample counts as wrong", self._seconds, completion)
        return False

    def _connect(self) -> Connection:
        if self._worker is None:
            # Not fork, which copies the locks of the threads of Ray and CUDA as they stand.
            context = multiprocessing.get_context("spawn")
            connection, other_end = context.Pipe()
            process = context.Process(target=serve, args=(other_end,), name="math-verify", daemon=True)
            process.start()
            # Else a dead process would not read as the end of the connection.
            other_end.close()
            self._worker = process, connection
            connection.recv()  # ready: the imports are not the first sample's time
        return self._worker[1]
