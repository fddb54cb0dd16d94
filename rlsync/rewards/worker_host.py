"""The host process, which forks worker processes, and the loop of a worker. rlsync/rewards/workers.py starts the host.

The host has imported all large modules, so a worker that was killed can be replaced at once. It has only one thread, so
forking is safe.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from rlsync.sandbox.confine import Confinement, confine, end_with_parent

Job = Callable[[Any], Any]


@dataclass(slots=True, kw_only=True)
class WorkerKind:
    """The job of a pool's workers and its limits. It is pickled and sent to the host."""

    maker: str
    """`module:function` of f(argument) -> job, where job(request) returns a JSON value."""
    argument: Any
    cpu_s: float
    """CPU time of a request in seconds, after which the kernel ends the process; 0 = no limit."""
    rules: Confinement | None = None
    """Rules that confine the workers; None = they are not confined, like other code of the user."""
    made_in_host: bool = True
    """Make the job once in the host, before workers are forked; not for the user's code, which may start threads."""


def main() -> None:
    """Run the host: fork a worker for each descriptor received, and end the worker of each pid received.

    The answers are the new worker's pid and the ended worker's wait status.
    """
    parent, control = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    end_with_parent(parent)
    with Connection(os.dup(control.fileno())) as first:
        kind: WorkerKind = first.recv()
        importlib.import_module(kind.maker.partition(":")[0])
        job = _made(kind) if kind.made_in_host else None
        first.send_bytes(b"ready")
    workers: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 8, 1)
        if not message:
            os._exit(0)
        if descriptors:
            pid = os.fork()
            if pid == 0:
                control.close()
                _work(Connection(descriptors[0]), kind, job)
            os.close(descriptors[0])
            workers.add(pid)
            control.sendall(pid.to_bytes(8, "little"))
        elif (pid := int.from_bytes(message, "little")) in workers:
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            workers.remove(pid)
            control.sendall(status.to_bytes(8, "little"))


def _made(kind: WorkerKind) -> Job:
    module, _, name = kind.maker.partition(":")
    job: Job = vars(importlib.import_module(module))[name](kind.argument)
    return job


def _work(connection: Connection, kind: WorkerKind, job: Job | None) -> None:
    """Answer requests until the other end closes. Never returns."""
    host = os.getppid()
    end_with_parent(host)
    if job is None:
        job = _made(kind)
    if kind.rules is not None:
        confine(kind.rules)
    connection.send_bytes(b"ready")
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        signal.setitimer(signal.ITIMER_PROF, kind.cpu_s)  # its signal ends the process even if the GIL is held
        try:
            reply = json.dumps({"value": job(request)})
        except BaseException as error:  # noqa: BLE001  (the user's function may raise anything, even SystemExit)
            if kind.rules is not None and isinstance(error, MemoryError | RecursionError):
                os._exit(1)  # the model's text has used up its limits
            reply = json.dumps({"error": f"{type(error).__name__}: {error}"})
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(reply.encode())
