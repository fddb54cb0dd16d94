"""CPU time and threads of a process, as the kernel reports them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_RUNNABLE = {"R", "D"}
"""States of a thread that computes, waits for a CPU, or waits for a disk."""


@dataclass(slots=True, kw_only=True)
class Usage:
    """Resources that a process has used so far, and its state."""

    cpu_s: float
    """CPU time in seconds."""
    threads: int
    """Number of threads."""
    asleep: bool
    """Whether no thread is runnable."""


def usage_of(pid: int) -> Usage | None:
    """Return the usage of a process; None if it has ended."""
    try:
        fields = _stat(Path(f"/proc/{pid}"))
        states = {_stat(thread)[0] for thread in Path(f"/proc/{pid}/task").iterdir()}
    except OSError:
        return None
    # fields[0] is the state, which is field 3 in proc(5). User and system time are fields 14 and 15, threads field 20.
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return Usage(cpu_s=cpu_s, threads=int(fields[17]), asleep=not states & _RUNNABLE)


def _stat(folder: Path) -> list[str]:
    """Return the fields after the name, which is in parentheses and may have any character."""
    return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
