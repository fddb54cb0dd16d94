"""Hostile programs in the sandbox: the kernel says no, whatever way they ask."""

import json
import os
import time

import pytest

from rlsync.config.data import DataConfig
from rlsync.config.reward import RewardConfig, RewardKind
from rlsync.data.source import open_source
from rlsync.errors import DataError
from rlsync.rewards.code_reward import CodeReward, extract_program
from rlsync.rewards.sandbox import Limits, check_available, run_python
from rlsync.rewards.scorer import Scorer
from rlsync.types import Problem

LIMITS = Limits(seconds=4, memory_mib=400)
RAW = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"


def _run(source, stdin="", limits=LIMITS):
    return run_python(source, stdin, limits)


def test_an_honest_program_runs():
    check_available()
    outcome = _run(
        "import math, json, re, random, collections, itertools, threading\n"
        "t = threading.Thread(target=lambda: None); t.start(); t.join()\n"
        "open('note.txt', 'w').write('mine'); print(open('note.txt').read(), int(input()) * 2)",
        "21\n",
    )
    assert (outcome.exit_code, outcome.stdout.strip()) == (0, "mine 42"), outcome.stderr


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
def test_python_asks(source):
    outcome = _run(source)
    assert outcome.exit_code != 0
    assert "PermissionError" in outcome.stderr or "not allowed" in outcome.stderr, outcome.stderr


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("socket", "41, 2, 1, 0"), ("fork", "57"), ("vfork", "58"), ("clone of a process", "56, 17, 0, 0, 0, 0"),
        ("execve", "59, b'/bin/true', None, None"), ("ptrace", "101, 16, os.getppid(), 0, 0"),
        ("kill", "62, os.getppid(), 9"), ("tgkill", "234, os.getppid(), os.getppid(), 9"),
        ("a signal by fcntl", "72, 0, 8, os.getppid()"), ("unlink of another's file", "87, VICTIM"),
        ("truncate", "76, VICTIM, 0"), ("mount", "165, None, None, None, 0, None"), ("io_uring", "425, 8, None"),
        ("bpf", "321, 0, None, 0"), ("unshare", "272, 0x10000000"), ("memfd", "319, b'x', 0"),
        ("process_vm_readv", "310, os.getppid(), None, 0, None, 0, 0"), ("x32 socket", "41 | 0x40000000, 2, 1, 0"),
    ],
)  # fmt: skip
def test_raw_system_calls_ask(name, call, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("here")
    source = f"VICTIM = {os.fsencode(victim)!r}\n{RAW}r = libc.syscall({call})\nprint(r, ctypes.get_errno())"
    outcome = _run(source)
    assert outcome.stdout.split()[:1] == ["-1"], (name, outcome)
    assert victim.read_text() == "here"


def test_a_loop_meets_the_clock():
    started = time.monotonic()
    assert _run("while True: pass", limits=Limits(seconds=1, memory_mib=400)).timed_out
    assert _run("import time; time.sleep(60)", limits=Limits(seconds=1, memory_mib=400)).timed_out
    assert time.monotonic() - started < 6


def test_memory_files_and_threads_are_bounded():
    assert "MemoryError" in _run("x = bytearray(1 << 31)").stderr
    assert _run("f = open('big', 'wb')\nwhile True: f.write(b'x' * 65536)").exit_code != 0
    many = "i = 0\nwhile True:\n    open(f'{i}', 'wb').write(b'x' * 500000); i += 1"
    assert _run(many).timed_out
    assert len(_run("while True: print('x' * 1000)").stdout) <= 1 << 16
    threads = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()"
    assert _run(threads, limits=Limits(seconds=2, memory_mib=400)).exit_code != 0


def _problem(answer):
    return Problem(id="p", prompt="", answer=answer)


def test_code_reward():
    whole, part = CodeReward(LIMITS, partial=False), CodeReward(LIMITS, partial=True)
    program = "Here:\n```python\ndef double(x):\n    return x * 2\n```\nDone."
    assert whole(program, _problem("assert double(2) == 4")) == 1.0
    assert whole(program, _problem("assert double(2) == 5")) == 0.0
    tests = _problem(json.dumps([{"input": "1", "output": "2"}, {"input": "2", "output": "5"}]))
    assert whole("print(int(input()) * 2)", tests) == 0.0
    assert part("print(int(input()) * 2)", tests) == 0.5
    assert extract_program("no block") == "no block"
    with pytest.raises(DataError, match="JSON list"):
        whole("x", _problem('[{"in": 1}]'))


def test_the_scorer_runs_programs_side_by_side_and_survives_bad_ones():
    scorer = Scorer(RewardConfig(kind=RewardKind.code, code_timeout_s=2), open_source(DataConfig()))
    good, bad = _problem("assert f(1) == 2"), _problem('[{"in": 1}]')
    texts = ["def f(x): return x + 1", "while True: pass", "def f(x): return x", "x"]
    scores = scorer.score([good, good, good, bad], texts)
    assert [score.reward for score in scores] == [1.0, 0.0, 0.0, None]
    assert [score.error is None for score in scores] == [True, True, True, False]
