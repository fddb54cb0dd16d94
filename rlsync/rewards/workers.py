"""Reward functions in processes of their own: bounded, replaced when they die, and confined where they read text of
the model in ways that are not proven harmless."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock
from typing import Any

from rlsync.rewards.worker_host import WorkerKind
from rlsync.sandbox.start import VARIABLES

_WALL_FACTOR, _WALL_EXTRA_S = 10, 20
"""Wall-clock bound of a request: so many times its CPU time, and so much more, for a machine that is busy."""
_START = "import sys; sys.path[:] = {path!r}; from rlsync.rewards.worker_host import main; main()"
# The kernel ends a child when the thread that started it ends; this one lives as long as the process.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="worker-starter")


class WorkerTimeoutError(Exception):
    """A request took longer than it may."""


class WorkerError(Exception):
    """A request's job raised an exception, or no process could be started."""


class WorkerLostError(WorkerError):
    """The process died in the middle of a request."""


@dataclass(slots=True, kw_only=True)
class _Worker:
    pid: int
    connection: Connection


class WorkerPool:
    """Up to `size` processes, each doing one request at a time; calls from any thread.

    Args:
        wall_s: longest time of a request, for code that may sleep; 0: no bound; None: what its CPU time explains.
        fresh: a process for each request, so that none can prepare another's outcome.
    """

    def __init__(self, kind: WorkerKind, size: int, *, wall_s: float | None = None, fresh: bool = False) -> None:
        self._kind, self._fresh = kind, fresh
        explained = _WALL_FACTOR * kind.cpu_s + _WALL_EXTRA_S
        self._wall_s = explained if wall_s is None else (wall_s or None)
        self._idle: SimpleQueue[_Worker | None] = SimpleQueue()
        for _ in range(size):
            self._idle.put(None)
        self._lock = Lock()
        self._host: _Host | None = None

    def call(self, request: Any) -> Any:
        """The JSON value that the job made of a request, which must pickle.

        Raises:
            WorkerTimeoutError: it took too long.
            WorkerError: the job raised, or its process died.
        """
        worker = self._idle.get()
        try:
            worker = worker or self._started()
            reply = self._asked(worker, request)
            if self._fresh:
                self._end(worker)
                worker = None
        except BaseException:
            worker = None
            raise
        finally:
            self._idle.put(worker)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["value"]

    def close(self) -> None:
        """End the processes; the next call starts others."""
        with self._lock:
            if self._host is not None:
                self._host.close()
                self._host = None

    def _asked(self, worker: _Worker, request: Any) -> dict[str, Any]:
        """Its reply; a worker that gives none has been ended."""
        try:
            worker.connection.send(request)
            if worker.connection.poll(self._wall_s):
                reply: dict[str, Any] = json.loads(worker.connection.recv_bytes())
                return reply
        except (EOFError, OSError) as error:
            status = self._end(worker)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
                raise WorkerTimeoutError(f"took longer than {self._kind.cpu_s:g} s of CPU time") from error
            raise WorkerLostError("the process died, for want of memory perhaps") from error
        except BaseException:
            self._end(worker)
            raise
        self._end(worker)
        raise WorkerTimeoutError(f"took longer than {self._wall_s:g} s")

    def _started(self) -> _Worker:
        with self._lock:
            if self._host is None:
                self._host = _STARTER.submit(_Host, self._kind).result()
            worker = self._host.fork()
        try:
            worker.connection.recv_bytes()  # ready: what it imports is not the first request's time
        except (EOFError, OSError) as error:
            self._end(worker)
            raise WorkerError(f"a worker process for {self._kind.maker} ended before it was ready") from error
        return worker

    def _end(self, worker: _Worker) -> int:
        """Kill a worker; its wait status."""
        worker.connection.close()
        with self._lock:
            return self._host.kill(worker.pid) if self._host is not None else 0


class _Host:
    """The process that workers are forked from."""

    def __init__(self, kind: WorkerKind) -> None:
        self._control, other_end = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path), str(os.getpid()), str(other_end.fileno())],
            pass_fds=[other_end.fileno()],
            stdin=subprocess.DEVNULL,
            env=VARIABLES if kind.rules is not None else None,  # text of the model sees no secrets
        )
        other_end.close()
        self._stop = weakref.finalize(self, _end, self._process)
        with Connection(os.dup(self._control.fileno())) as first:
            first.send(kind)
            try:
                first.recv_bytes()
            except (EOFError, OSError) as error:
                self.close()
                raise WorkerError(f"the host process for {kind.maker} ended before it was ready") from error

    def fork(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"fork"], [theirs.fileno()])
        return _Worker(pid=int.from_bytes(self._said(), "little"), connection=Connection(ours.detach()))

    def kill(self, pid: int) -> int:
        """End a worker; its wait status."""
        self._control.sendall(pid.to_bytes(8, "little"))
        return int.from_bytes(self._said(), "little")

    def close(self) -> None:
        self._stop()
        self._control.close()

    def _said(self) -> bytes:
        said = self._control.recv(8, socket.MSG_WAITALL)
        if len(said) < 8:
            raise WorkerError("the host of the worker processes died")
        return said


def _end(process: subprocess.Popen[bytes]) -> None:
    """The kernel ends the workers with their host."""
    process.kill()
    process.wait()
