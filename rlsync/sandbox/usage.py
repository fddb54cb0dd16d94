"""How much a process has used, as the kernel reports it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_RUNNABLE = {"R", "D"}
"""States of a thread that computes, waits for a CPU, or waits for a disk."""


@dataclass(slots=True, kw_only=True)
class Usage:
    cpu_s: float
    threads: int
    asleep: bool
    """No thread wants to run."""


def usage_of(pid: int) -> Usage | None:
    """The usage of a process; None once it has ended."""
    try:
        fields = _stat(Path(f"/proc/{pid}"))
        states = {_stat(thread)[0] for thread in Path(f"/proc/{pid}/task").iterdir()}
    except OSError:
        return None
    # Numbered from the state on, which is field 3 in proc(5): user and system time are 14 and 15, threads 20.
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return Usage(cpu_s=cpu_s, threads=int(fields[17]), asleep=not states & _RUNNABLE)


def _stat(folder: Path) -> list[str]:
    """The fields after the name, which is in parentheses and may hold anything."""
    return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
