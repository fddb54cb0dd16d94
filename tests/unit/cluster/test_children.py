"""The first child process that dies is named, although its siblings are killed then."""

import os
import subprocess
import sys
import time
from multiprocessing import get_context, shared_memory

import pytest

from rlsync.cluster.children import Children, remove


@pytest.fixture
def sleepers():
    processes = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(3)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def _children(processes):
    return Children({process.pid: f"worker {i}" for i, process in enumerate(processes)})


def test_the_first_dead_is_named_and_its_siblings_follow(sleepers):
    children = _children(sleepers)
    assert children.first_dead is None
    sleepers[1].kill()
    assert [p.wait(10) for p in sleepers] == [-9, -9, -9]
    assert children.first_dead == f"worker 1 (pid {sleepers[1].pid})"


def test_control_after_let_go_they_may_end(sleepers):
    children = _children(sleepers)
    children.let_go()
    sleepers[1].kill()
    sleepers[1].wait(10)
    time.sleep(0.5)
    assert children.first_dead is None
    assert sleepers[0].poll() is None


def test_shared_memory_is_found_and_removed():
    code = (
        "import mmap, time; file = open('{}', 'r+b'); held = mmap.mmap(file.fileno(), 4096); "
        "print('ready', flush=True); time.sleep(60)"
    )
    segment = shared_memory.SharedMemory(create=True, size=4096)
    path = f"/dev/shm/{segment.name.lstrip('/')}"
    lock = get_context("spawn").Lock()
    holder = subprocess.Popen([sys.executable, "-c", code.format(path)], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        held = Children({holder.pid: "holder"}).segments()
        assert path in held
        assert any("sem.mp-" in name for name in held)
        remove([path])
        assert not os.path.exists(path)
        remove([path])  # gone already
    finally:
        holder.kill()
        holder.wait()
        segment.close()
        del lock
