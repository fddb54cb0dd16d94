"""The child processes of an actor: which died first, and which shared memory they leave behind."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

_SHARED_MEMORY = "/dev/shm/"
_SEMAPHORE = "sem.mp-"


class Children:
    """Watches processes from its creation on.

    If one dies before `let_go`, the others are killed at once, because they might wait for it forever.

    Args:
        names: Name of each pid, for messages.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._processes = [psutil.Process(pid) for pid in names]
        self._first_dead: str | None = None
        self._watching = True
        handles = {os.pidfd_open(pid): f"{name} (pid {pid})" for pid, name in names.items()}
        threading.Thread(target=self._watch, args=(handles,), daemon=True, name="rlsync-children").start()

    @property
    def first_dead(self) -> str | None:
        """Name of the process that ended first, if any did."""
        return self._first_dead

    def let_go(self) -> None:
        """Stop watching: from now on the processes may end."""
        self._watching = False

    def segments(self) -> list[str]:
        """Return the files of shared memory that the processes hold, and the semaphores of this process.

        They are not removed if a process is killed.
        """
        held = {path for process in self._processes if process.is_running() for path in _mapped(process.pid, "")}
        return sorted(held | _mapped(os.getpid(), _SEMAPHORE))

    def _watch(self, handles: dict[int, str]) -> None:
        poll = select.poll()
        for handle in handles:
            poll.register(handle, select.POLLIN)
        if handles:
            dead = handles[poll.poll()[0][0]]
            if self._watching:
                self._first_dead = dead
                self._kill()
        for handle in handles:
            os.close(handle)

    def _kill(self) -> None:
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def end_processes(processes: list[psutil.Process], grace_s: float) -> None:
    """Wait `grace_s` seconds for processes to end, then kill those that still run.

    psutil never kills a later process that has got the same pid.
    """
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def remove(segments: Iterable[str]) -> None:
    """Remove the files of shared memory that still exist."""
    for path in segments:
        Path(path).unlink(missing_ok=True)


def _mapped(pid: int, prefix: str) -> set[str]:
    """Return the files of shared memory whose names begin with `prefix` and that a process has mapped.

    They are identified by inode, because a semaphore is mapped under the name of a temporary file.
    """
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):  # the process has just ended
        return set()
    inodes = {int(line.split(maxsplit=5)[4]) for line in maps if _SHARED_MEMORY in line}
    with os.scandir(_SHARED_MEMORY) as files:
        return {file.path for file in files if file.name.startswith(prefix) and file.inode() in inodes}
