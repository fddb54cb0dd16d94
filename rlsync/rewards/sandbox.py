"""Run untrusted Python in a process that the kernel confines: no network, no other process, no file but its own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rlsync.errors import ConfigError
from rlsync.rewards import sandbox_child

_FILE_BYTES = 1 << 20
"""Largest file that a program may write; its output is two of them."""
_FOLDER_BYTES = 1 << 24
"""Of all its files together."""
_POLL_S = 0.05
_SHOWN_BYTES = 1 << 16


@dataclass(slots=True, kw_only=True)
class Limits:
    seconds: float = 5.0
    """Of wall time, and of CPU time rounded up."""
    memory_mib: int = 512
    """Of address space."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    exit_code: int
    """0 if the program ended by itself without an exception; negative: the signal that ended it."""
    timed_out: bool
    """It was ended: by the clock, or for the size of its files."""
    stdout: str
    """At most 64 KiB."""
    stderr: str


def run_python(source: str, stdin: str, limits: Limits) -> Outcome:
    """Run a program to its end, or to a limit.

    Raises:
        ConfigError: the kernel lacks what confines a program.
    """
    with tempfile.TemporaryDirectory(prefix="rlsync-sandbox-") as scratch:
        folder, out, err = Path(scratch, "program"), Path(scratch, "out"), Path(scratch, "err")
        folder.mkdir()
        (folder / "main.py").write_text(source, encoding="utf-8", errors="replace")
        (Path(scratch) / "in").write_text(stdin, encoding="utf-8", errors="replace")
        numbers = (limits.memory_mib << 20, int(limits.seconds) + 1, _FILE_BYTES)
        command = [sys.executable, "-I", sandbox_child.__file__, str(folder), *map(str, numbers)]
        with (Path(scratch) / "in").open() as given, out.open("w") as to_out, err.open("w") as to_err:
            process = subprocess.Popen(
                command, cwd=folder, stdin=given, stdout=to_out, stderr=to_err, env={"PYTHONDONTWRITEBYTECODE": "1"}
            )
            timed_out = _watch(process, folder, time.monotonic() + limits.seconds)
        code = process.returncode
        if code == sandbox_child.UNAVAILABLE:
            raise ConfigError(_REFUSAL)
        return Outcome(exit_code=code, timed_out=timed_out, stdout=_beginning(out), stderr=_beginning(err))


def _watch(process: subprocess.Popen[bytes], folder: Path, deadline: float) -> bool:
    """Wait for the end, or bring it about at the deadline or when the folder grows too large; True for the latter."""
    while True:
        try:
            process.wait(timeout=_POLL_S)
            return False
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline or _size(folder) > _FOLDER_BYTES:
                process.kill()
                process.wait()
                return True


def _size(folder: Path) -> int:
    return sum(os.lstat(os.path.join(root, name)).st_size for root, _, names in os.walk(folder) for name in names)


@functools.cache
def check_available() -> None:
    """Raises ConfigError where code rewards must be refused, before a run starts."""
    try:
        outcome = run_python("import socket\nsocket.socket()", "", Limits())
    except OSError as error:
        raise ConfigError(f"{_REFUSAL} ({error})") from error
    if "PermissionError" not in outcome.stderr:
        raise ConfigError(f"{_REFUSAL} (a socket could be opened)")


_REFUSAL = (
    "reward.kind=code runs generated programs, and this machine cannot confine them: it needs Linux on x86-64 with "
    "Landlock (5.13) and seccomp. Use another reward, or a kernel that has them."
)


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_SHOWN_BYTES).decode("utf-8", errors="replace")
