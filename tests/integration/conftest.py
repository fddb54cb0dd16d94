"""Fixtures of the integration tests; what they use is in support.py."""

from __future__ import annotations

import time

import pytest
from support import Launcher, Run, Watch


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
def leaves_nothing(launcher: Launcher):
    """Fails if the test's runs leave a process, and with it a port, or shared memory."""
    watch = Watch(launcher.mark)
    yield
    deadline = time.monotonic() + 60
    while (watch.processes() or watch.segments()) and time.monotonic() < deadline:
        time.sleep(0.5)
    watch.close()
    names = [f"{process.pid} {process.name()}" for process in watch.processes()]
    assert (names, watch.segments()) == ([], set()), "left behind"
