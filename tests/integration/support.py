"""Runs of the real command line: real Ray, vLLM and FSDP2 on this machine's CPU."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

_LIMIT_S = 900
"""Longest run in seconds. Even on a busy machine, only a run that hangs takes as long."""
_MARK = "RLSYNC_TESTED_BY"
"""Environment variable of a run, which all its processes inherit."""
_SHARED = "/dev/shm/"
SMALL = (
    "recipe=grpo_arithmetic_tiny_cpu",
    "algorithm.prompts_per_step=8",
    "algorithm.group_size=4",
    "eval.problems=32",
    "trainer.steps=3",
    "seed=3",
    "telemetry=files_only",
    "model.tiny.warm_start_steps=200",
    "trainer.lr=3e-4",  # so little that three steps do not make every answer of a group the same
    "trainer.adam_eps=1e-8",
    "trainer.warmup_steps=0",
)

REWARD = ("reward=regex", r"reward.pattern='^\d'")
"""Pays for a first character that is a digit rather than a tilde or a sign. The warm start's demonstrations have both
styles, so rewards differ within groups, and gradients are not 0, whatever a processor's rounding makes of the model."""


@dataclass
class Run:
    folder: Path
    code: int
    out: str
    err: str

    @property
    def metrics(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


class Launcher:
    """Starts `rlsync train` or another command on a small version of the default recipe."""

    def __init__(self, root: Path, cache: Path | None = None) -> None:
        self.root = root
        self.cache = cache or root / "cache"
        self.mark = secrets.token_hex(8)
        self.environment = os.environ | {_MARK: self.mark}
        self._count = 0

    def start(self, *overrides: str, small: bool = True, verb: str = "train") -> tuple[subprocess.Popen, Path]:
        self._count += 1
        folder = self.root / f"run{self._count}"
        command = [sys.executable, "-m", "rlsync.cli", verb, *(SMALL if small else ())]
        if small and not any(override.startswith("reward") for override in overrides):
            command += REWARD
        command += [f"run.dir={folder}", f"model.cache_dir={self.cache}", *overrides]
        process = subprocess.Popen(
            command,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            preexec_fn=_hear_ctrl_c,
        )
        return process, folder

    def finish(self, process: subprocess.Popen, folder: Path, limit_s: float = _LIMIT_S) -> Run:
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            out, err = process.communicate(timeout=60)
            pytest.fail(f"no end within {limit_s} s\n{out}\n{err}")
        return Run(folder, process.returncode, out, err)

    def run(self, *overrides: str, small: bool = True, verb: str = "train") -> Run:
        return self.finish(*self.start(*overrides, small=small, verb=verb))


def _hear_ctrl_c() -> None:
    """A shell starts background jobs, these tests perhaps among them, deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_step(folder: Path, process: subprocess.Popen, step: int, limit_s: float = _LIMIT_S) -> None:
    """Wait until metrics.jsonl has a line for `step`."""
    deadline = time.monotonic() + limit_s
    path = folder / "metrics.jsonl"
    while not (path.exists() and len(path.read_text().splitlines()) >= step):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.2)


def descendants(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


class Watch:
    """Processes and shared memory of one launcher's runs; other programs and other runs on the machine are ignored.

    A thread collects the shared memory that their processes map, because a segment does not tell whose it was.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._segments: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def processes(self) -> list[psutil.Process]:
        """The runs' processes, those whose parents have ended included. Their ports end with them."""
        return [process for process in psutil.process_iter() if self._is_own(process)]

    def segments(self) -> set[str]:
        """Files of shared memory that the runs' processes had and that are still there."""
        return {path for path in self._segments if os.path.exists(path)}

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Collect the shared memory that is mapped now."""
        for process in self.processes():
            try:
                lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            except OSError:  # it has just ended
                continue
            self._segments |= {_SHARED + line.partition(_SHARED)[2] for line in lines if _SHARED in line}

    def _collect(self) -> None:
        while not self._stop.wait(0.5):
            self.look()

    def _is_own(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:  # it has just ended, or is another user's
            return False
