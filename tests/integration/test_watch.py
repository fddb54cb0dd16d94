"""The check that runs leave nothing behind finds what a run leaves, and ignores other programs."""

import os
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory

import pytest
from support import Launcher, Watch

DETACHED = "import os, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
"""A child that outlives its parent."""
SEGMENT = """
import time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
segment = SharedMemory(create=True, size=4096)
resource_tracker.unregister("/" + segment.name, "shared_memory")
print(segment.name, flush=True)
input()
"""


def _start(code, environment):
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def own(tmp_path):
    """The environment of a launcher's runs, and a watch over them."""
    launcher = Launcher(tmp_path)
    watch = Watch(launcher.mark)
    yield launcher.environment, watch
    watch.close()


@pytest.mark.parametrize("marked", [True, False])
def test_a_process_whose_parent_has_ended(own, marked):
    environment, watch = own
    process = _start(DETACHED, environment if marked else os.environ)
    left = int(process.stdout.readline())
    process.wait()
    try:
        assert [p.pid for p in watch.processes()] == ([left] if marked else [])
    finally:
        os.kill(left, 9)
    deadline = time.monotonic() + 60
    while watch.processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watch.processes() == []


@pytest.mark.parametrize("marked", [True, False])
def test_shared_memory_that_nobody_removed(own, marked):
    environment, watch = own
    process = _start(SEGMENT, environment if marked else os.environ)
    name = process.stdout.readline().strip()
    watch.look()
    process.communicate("\n")
    try:
        assert watch.segments() == ({f"/dev/shm/{name}"} if marked else set())
    finally:
        SharedMemory(name).unlink()
    assert watch.segments() == set()
