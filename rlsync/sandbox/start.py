"""Start and end one confined process."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rlsync.sandbox.child import CONFINED, Role, Task
from rlsync.sandbox.confine import NEWEST_ABI, Confinement

FILE_BYTES = 1 << 20
"""Size of the largest file that a program may write. Standard output and standard error are one file each."""
_ROOT = Path(__file__).parents[2]
_START = f"import sys; sys.path.insert(0, {os.fspath(_ROOT)!r}); from rlsync.sandbox.child import main; main()"
VARIABLES = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",  # a program that prints a set prints it in the same order every time
    "PYTHONUTF8": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class SandboxError(RuntimeError):
    """A process could not be started or confined, so its program has not run."""


@dataclass(slots=True, kw_only=True)
class Limits:
    """Limits of a process."""

    seconds: float = 5.0
    """CPU time in seconds, and separately the time that the process sleeps, so the outcome does not depend on the
    load."""
    memory_mib: int = 512
    """Address space in MiB."""
    landlock_abi: int = NEWEST_ABI
    """Newest version of Landlock to use."""


class Pipe:
    """The two descriptors of a pipe, closed at the end of the block."""

    def __enter__(self) -> Pipe:
        self.read, self.write = os.pipe()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.read)
        os.close(self.write)


@dataclass(slots=True, kw_only=True)
class Files:
    """The files of a process's standard streams; None = /dev/null, or for stderr a temporary file."""

    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None
    stderr: IO[bytes] | None = None


@dataclass(slots=True, kw_only=True)
class Wires:
    """Descriptors that a process inherits to communicate with another one; -1 = none."""

    incoming: int = -1
    """Pipe from the other process."""
    outgoing: int = -1
    """Pipe to the other process."""
    result: int = -1
    """File for the outcome of the tests."""


@dataclass(slots=True, kw_only=True)
class Process:
    """A confined process."""

    popen: subprocess.Popen[bytes]
    folder: str
    status: IO[bytes]
    """File to which the process writes that it is confined."""
    errors: IO[bytes]
    """File of its standard error."""

    def end(self) -> None:
        """Kill the process if it still runs, and check that it was confined.

        Raises:
            SandboxError: It was not confined, so the program has not run.
        """
        self.kill()
        if text_of(self.status) != CONFINED.decode():
            raise SandboxError(f"a confined process could not be started: {text_of(self.errors)[-500:].strip()}")

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        self.popen.kill()
        self.popen.wait()


@contextmanager
def started(
    role: Role, job: str, rules: Confinement, *, files: Files | None = None, wires: Wires | None = None
) -> Iterator[Process]:
    """Start a confined process, and kill it at the end of the block.

    Args:
        role: What the process does.
        job: Text of the program, or the examination as JSON.
        rules: The rules that confine it.
        files: Files of its standard streams.
        wires: Descriptors for the communication with another process.
    """
    files, wires = files or Files(), wires or Wires()
    with temporary() as status, temporary() as errors, temporary(job) as given:
        task = Task(
            role=role, parent=os.getpid(), rules=rules, status=status.fileno(), job=given.fileno(),
            incoming=wires.incoming, outgoing=wires.outgoing, result=wires.result,
        )  # fmt: skip
        errors = files.stderr or errors
        popen = subprocess.Popen(
            [sys.executable, "-s", "-P", "-c", _START, task.to_json()],
            cwd=rules.folder or "/", env=VARIABLES, stdin=files.stdin or subprocess.DEVNULL,
            stdout=files.stdout or subprocess.DEVNULL, stderr=errors,
            pass_fds=[fd for fd in (task.status, task.job, task.incoming, task.outgoing, task.result) if fd >= 0],
        )  # fmt: skip
        process = Process(popen=popen, folder=rules.folder, status=status, errors=errors)
        try:
            yield process
        finally:
            process.kill()


def rules_of(limits: Limits, *, folder: str = "", file_bytes: int = FILE_BYTES) -> Confinement:
    """Return the rules for a process.

    Args:
        limits: Its limits.
        folder: The only folder that it may write to; empty = none.
        file_bytes: Size of the largest file that it may write.
    """
    return Confinement(
        folder=folder,
        library=_library(),
        memory_bytes=limits.memory_mib << 20,
        cpu_s=int(limits.seconds) + 1,
        file_bytes=file_bytes,
        landlock_abi=limits.landlock_abi,
    )


@functools.cache
def _library() -> list[str]:
    """Return the folders of the standard library and of installed packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    shared_objects = os.path.join(sys.base_prefix, "lib")
    return sorted({os.path.realpath(path) for path in (*map(sysconfig.get_path, names), shared_objects)})


def temporary(text: str = "") -> IO[bytes]:
    """Make a file without a name that contains the text."""
    file = tempfile.TemporaryFile(prefix="rlsync-sandbox-")  # noqa: SIM115  (the caller closes it)
    file.write(text.encode(errors="replace"))
    file.seek(0)
    return file


def text_of(file: IO[bytes]) -> str:
    """Return the contents of a file as text."""
    file.seek(0)
    return file.read().decode(errors="replace")
