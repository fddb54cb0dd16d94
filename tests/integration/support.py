"""Runs of the real command line: real Ray, vLLM and FSDP2 on this machine's CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

_LIMIT_S = 300
SMALL = (
    "recipe=grpo_arithmetic_tiny_cpu",
    "algorithm.prompts_per_step=8",
    "algorithm.group_size=4",
    "eval.problems=32",
    "trainer.steps=3",
    "seed=3",  # of those whose every step has a group with a signal
    "telemetry=files_only",
    "model.tiny.warm_start_steps=200",  # enough for some right answers: without reward no weight would move
    "trainer.lr=1e-3",
    "trainer.adam_eps=1e-8",
    "trainer.warmup_steps=0",
)


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

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / "cache"
        self._count = 0

    def start(self, *overrides: str, small: bool = True, verb: str = "train") -> tuple[subprocess.Popen, Path]:
        self._count += 1
        folder = self.root / f"run{self._count}"
        command = [sys.executable, "-m", "rlsync.cli", verb, *(SMALL if small else ())]
        command += [f"run.dir={folder}", f"model.cache_dir={self.cache}", *overrides]
        process = subprocess.Popen(
            command,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
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
    """Until metrics.jsonl has a line for `step`."""
    deadline = time.monotonic() + limit_s
    path = folder / "metrics.jsonl"
    while not (path.exists() and len(path.read_text().splitlines()) >= step):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.2)


def descendants(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def all_processes() -> set[int]:
    """Pids of every process of Ray, vLLM or rlsync on this machine, but for the tests' own."""
    marks = ("ray::", "raylet", "gcs_server", "VllmWorker", "Worker_TP", "rlsync", "ray/_private", "plasma")
    found = set()
    for process in psutil.process_iter(["pid", "cmdline", "name", "status"]):
        line = " ".join(process.info["cmdline"] or [process.info["name"] or ""])
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(m in line for m in marks) and "pytest" not in line:
            found.add(process.info["pid"])
    return found


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


def listening_ports() -> set[int]:
    return {c.laddr.port for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN}
