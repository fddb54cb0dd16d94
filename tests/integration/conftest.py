"""Fixtures of the integration tests; what they use is in support.py."""

from __future__ import annotations

import fcntl
import json
import time
from pathlib import Path

import pytest
from support import Launcher, Run, Watch

LONGEST_FIRST = ("training", "faults", "parity_command", "trace", "conversations", "ppo", "eval", "errors", "recipes")
"""Files of tests in the order in which they begin, so that two processes end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; a file's own order stays."""
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of pytest share: the parent of their own folders."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Launcher:
    return Launcher(tmp_path_factory.mktemp("runs"), shared / "cache")


@pytest.fixture(scope="session")
def reference(launcher: Launcher, shared: Path) -> Run:
    """A run of three steps at TP=2 that saves weights after each. The first process to ask runs it; others wait."""
    record = shared / "reference.json"
    with (shared / "reference.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            run = launcher.run("trainer.save_every=1")
            record.write_text(json.dumps([str(run.folder), run.code, run.out, run.err]))
    folder, code, out, err = json.loads(record.read_text())
    assert code == 0, out + err
    return Run(Path(folder), code, out, err)


@pytest.fixture
def leaves_nothing(launcher: Launcher):
    """Fails if the test's runs leave a process (and with it a port) or shared memory."""
    watch = Watch(launcher.mark)
    yield
    deadline = time.monotonic() + 60
    while (watch.processes() or watch.segments()) and time.monotonic() < deadline:
        time.sleep(0.5)
    watch.close()
    names = [f"{process.pid} {process.name()}" for process in watch.processes()]
    assert (names, watch.segments()) == ([], set()), "left behind"
