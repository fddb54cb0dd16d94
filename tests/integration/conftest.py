"""Fixtures of the integration tests; what they use is in support.py."""

from __future__ import annotations

import time

import psutil
import pytest
from support import Launcher, Run, all_processes, listening_ports, shared_memory


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    return Launcher(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def reference(launcher: Launcher) -> Run:
    """Three steps at TP=2, weights saved after each."""
    run = launcher.run("trainer.save_every=1")
    assert run.code == 0, run.out + run.err
    return run


@pytest.fixture
def leaves_nothing():
    """Fails unless the processes, shared memory and ports after the test are those from before it."""
    processes, memory, ports = all_processes(), shared_memory(), listening_ports()
    yield
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = (all_processes() - processes, shared_memory() - memory, listening_ports() - ports)
        if not any(left):
            return
        time.sleep(0.5)
    names = [" ".join(psutil.Process(p).cmdline())[:200] for p in left[0] if psutil.pid_exists(p)]
    pytest.fail(f"left behind: processes {names}, shared memory {left[1]}, ports {left[2]}")
