"""Hostile programs in the sandbox: the kernel refuses what they try, also with the rights of older kernels."""

import os

import pytest

from rlsync.sandbox.confine import NEWEST_ABI
from rlsync.sandbox.run import check_available, run_python
from rlsync.sandbox.start import Limits

ABIS = (1, NEWEST_ABI)
"""Versions of Landlock: that of Linux 5.13 has the fewest rights."""
RAW = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"


def _run(source, stdin="", *, seconds=4, abi=NEWEST_ABI):
    return run_python(source, stdin, Limits(seconds=seconds, memory_mib=400, landlock_abi=abi))


def test_an_honest_program_runs():
    check_available()
    outcome = _run(
        "import math, json, re, random, collections, itertools, threading\n"
        "t = threading.Thread(target=lambda: None); t.start(); t.join()\n"
        "open('note.txt', 'w').write('mine'); print(open('note.txt').read(), int(input()) * 2)",
        "21\n",
    )
    assert (outcome.exit_code, outcome.stdout.strip()) == (0, "mine 42"), outcome.stderr


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize(
    "source",
    [
        "import socket; socket.socket()",
        "import socket; socket.socketpair()",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.chmod('/etc/passwd', 0o600)",
        "import os; os.chown('main.py', 0, 0)",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
        "open('/etc/passwd').read()",
        "open('/proc/self/environ').read()",
        "import os; os.listdir('/')",
        "open('/tmp/escape', 'w')",
        "import os; os.symlink('/etc', 'link'); open('link/passwd').read()",
        "import os; os.mkdir('/tmp/escape')",
    ],
)
def test_python_asks(source, abi):
    outcome = _run(source, abi=abi)
    assert outcome.exit_code != 0
    assert "PermissionError" in outcome.stderr or "not allowed" in outcome.stderr, outcome.stderr


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("socket", "41, 2, 1, 0"), ("fork", "57"), ("vfork", "58"), ("clone of a process", "56, 17, 0, 0, 0, 0"),
        ("execve", "59, b'/bin/true', None, None"), ("ptrace", "101, 16, os.getppid(), 0, 0"),
        ("kill", "62, os.getppid(), 9"), ("tgkill", "234, os.getppid(), os.getppid(), 9"),
        ("a signal by fcntl", "72, 0, 8, os.getppid()"), ("unlink of another's file", "87, VICTIM"),
        ("truncate", "76, VICTIM, 0"), ("mount", "165, None, None, None, 0, None"), ("io_uring", "425, 8, None"),
        ("bpf", "321, 0, None, 0"), ("unshare", "272, 0x10000000"), ("memfd", "319, b'x', 0"),
        ("fallocate", "285, 1, 1, 0, 4096"), ("open to empty", "2, VICTIM, os.O_TRUNC"),
        ("open at to empty", "257, -100, VICTIM, os.O_TRUNC | 3"), ("prctl", "157, 1, 0, 0, 0, 0"),
        ("process_vm_readv", "310, os.getppid(), None, 0, None, 0, 0"), ("x32 socket", "41 | 0x40000000, 2, 1, 0"),
    ],
)  # fmt: skip
def test_raw_system_calls_ask(name, call, abi, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("here")
    source = f"VICTIM = {os.fsencode(victim)!r}\n{RAW}r = libc.syscall({call})\nprint(r, ctypes.get_errno())"
    outcome = _run(source, abi=abi)
    assert outcome.stdout.split()[:1] == ["-1"], (name, outcome)
    assert victim.read_text() == "here"


def test_a_loop_and_a_sleep_meet_their_limit():
    assert _run("while True: pass", seconds=1).stopped
    assert _run("import time; time.sleep(60)", seconds=1).stopped
    assert not _run("import time; time.sleep(0.1)", seconds=1).stopped  # the control


def test_memory_files_and_threads_are_bounded():
    assert "MemoryError" in _run("x = bytearray(1 << 31)").stderr
    assert _run("f = open('big', 'wb')\nwhile True: f.write(b'x' * 65536)").exit_code != 0
    many = "i = 0\nwhile True:\n    open(f'{i}', 'wb').write(b'x' * 500000); i += 1"
    assert _run(many).stopped
    assert len(_run("while True: print('x' * 1000)").stdout) <= 1 << 20
    threads = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()"
    assert _run(threads).exit_code != 0
