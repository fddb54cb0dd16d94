"""Worker processes for reward functions: limited in time, replaced when they die, and optionally confined."""

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
"""Default wall-clock limit of a request: this factor times its CPU time plus this many seconds, for a busy machine."""
_START = "import sys; sys.path[:] = {path!r}; from rlsync.rewards.worker_host import main; main()"
# The kernel ends a child when the thread that started it ends. This thread lives as long as the process.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="worker-starter")


class WorkerTimeoutError(Exception):
    """A request exceeded its time limit."""


class WorkerError(Exception):
    """A request's job raised an exception, or no process could be started."""


class WorkerLostError(WorkerError):
    """The worker process died during a request."""


@dataclass(slots=True, kw_only=True)
class _Worker:
    pid: int
    connection: Connection


class WorkerPool:
    """At most `size` processes, each of which handles one request at a time. It can be called from any thread.

    Args:
        kind: The job and its limits.
        size: Most processes.
        wall_s: Longest time of a request in seconds, for code that may sleep; 0 = no limit; None = derived from the
            limit of CPU time.
        fresh: Use a new process for each request, so that no request can influence another.
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
        """Send a picklable request to a worker and return the JSON value that the job makes of it.

        Raises:
            WorkerTimeoutError: The request took too long.
            WorkerError: The job raised an exception, or its process died.
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
        """End the processes; the next call starts new ones."""
        with self._lock:
            if self._host is not None:
                self._host.close()
                self._host = None

    def _asked(self, worker: _Worker, request: Any) -> dict[str, Any]:
        """Return the worker's reply. If there is none, the worker is ended before an exception is raised."""
        try:
            worker.connection.send(request)
            if worker.connection.poll(self._wall_s):
                reply: dict[str, Any] = json.loads(worker.connection.recv_bytes())
                return reply
        except (EOFError, OSError) as error:
            status = self._end(worker)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
                raise WorkerTimeoutError(f"the call used more than {self._kind.cpu_s:g} s of CPU time") from error
            raise WorkerLostError("the process died, possibly because it ran out of memory") from error
        except BaseException:
            self._end(worker)
            raise
        self._end(worker)
        raise WorkerTimeoutError(f"the call took longer than {self._wall_s:g} s")

    def _started(self) -> _Worker:
        with self._lock:
            if self._host is None:
                self._host = _STARTER.submit(_Host, self._kind).result()
            worker = self._host.fork()
        try:
            worker.connection.recv_bytes()  # ready: the first request's time does not include imports
        except (EOFError, OSError) as error:
            self._end(worker)
            raise WorkerError(f"a worker process for {self._kind.maker} ended before it was ready") from error
        return worker

    def _end(self, worker: _Worker) -> int:
        """Kill a worker, and return its wait status."""
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
            env=VARIABLES if kind.rules is not None else None,  # hide secrets from the model's text
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
        """Kill a worker, and return its wait status."""
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
    """Kill the host; the kernel ends its workers with it."""
    process.kill()
    process.wait()
