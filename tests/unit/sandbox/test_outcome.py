"""The outcome and the limits of a program's run; no process outlives the driver."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from rlsync.rewards.code_output import same_output
from rlsync.sandbox import run, scratch
from rlsync.sandbox.child import CONFINED
from rlsync.sandbox.examine import Call, Examination
from rlsync.sandbox.run import run_python, run_tests
from rlsync.sandbox.scratch import MOST_ENTRIES, overfull, remove, scratch_folder
from rlsync.sandbox.start import Limits, SandboxError, text_of

LIMITS = Limits(seconds=2, memory_mib=400)


def test_each_piece_counts():
    program = "def f(x): return x + 1\ndef g(): raise ValueError('no')"
    pieces = ["assert f(1) == 2", "assert f(1) == 3", "import math\nassert math.floor(f(0.5)) == 1", "g()"]
    assert run_tests(program, Examination(pieces=pieces), LIMITS) == [True, False, True, False]
    assert run_tests(program, Examination(pieces=pieces, stop_early=True), LIMITS) == [True, False]
    calls = [Call(arguments=[1], expected=2), Call(arguments=[1], expected=3), Call(arguments=[1.5], expected=2.5)]
    assert run_tests(program, Examination(function="f", calls=calls), LIMITS) == [True, False, True]
    method = "class Solution:\n    def f(self, x): return x + 1"
    assert run_tests(method, Examination(function="f", calls=calls), LIMITS) == [True, False, True]


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(): return (1, 'a', None, True, 2.5)", "assert f() == (1, 'a', None, True, 2.5)"),
        ("def f(): return [(1, 2), {3}, frozenset({4})]", "assert f() == [(1, 2), {3}, frozenset({4})]"),
        ("def f(): return {1: 'a', (2, 3): [b'x', 1j]}", "assert f() == {1: 'a', (2, 3): [b'x', 1j]}"),
        ("def f(): return 10**40, -10**40", "assert f() == (10**40, -10**40)"),
        ("def f(): return float('inf')", "import math\nassert math.isinf(f())"),
        ("from collections import Counter\ndef f(): return Counter('aab')", "assert f() == {'a': 2, 'b': 1}"),
        ("def f(x, *, key): return [x, key]", "assert f((1,), key={2}) == [(1,), {2}]"),
        ("def f(g, x): return g(g(x))", "assert f(lambda n: n * 3, 2) == 18"),
        ("def f(g, x): return list(map(g, x))", "assert f(str, [1]) == ['1'] and f(len, ['ab']) == [2]"),
        ("def f(): raise KeyError('k')", "try:\n    f()\nexcept KeyError:\n    pass\nelse:\n    assert False"),
        ("def f():\n    yield 1\n    yield 2", "assert list(f()) == [1, 2]"),
        ("class Box:\n    def __init__(self): self.items = []\n    def put(self, x): self.items.append(x)\n"
         "    def __len__(self): return len(self.items)\n    def __getitem__(self, i): return self.items[i]",
         "b = Box()\nb.put(4)\nassert len(b) == 1 and b[0] == 4 and b.items == [4] and 4 in b"),
        ("def f(x, y, z): x.sort(); y[2] = 0; z.add(3)",
         "x, y, z = [2, 1], {1: 1}, {2}\nf(x, y, z)\nassert x == [1, 2] and y == {1: 1, 2: 0} and z == {2, 3}"),
        ("def f(): return 1", "from solution import f as g\nassert g() == 1"),
        ("def f(): return 1", "import solution\nassert solution.f() == 1"),
        ("def f(): return 1", "def check(candidate):\n    assert candidate() == 1\ncheck(f)"),
        ("def f(): return 1", "def test_f():\n    assert f() == 1"),
        ("import math\ndef f(): return 2.0", "assert math.isclose(f(), 2.0)"),
        ("X = [1, 2]\ndef f(): return 1", "assert X == [1, 2]"),
        ("if __name__ == '__main__': input()\ndef f(): return 1", "assert f() == 1"),
    ],
)  # fmt: skip
def test_what_tests_may_do(program, tests):
    assert run_tests(program, Examination(pieces=[tests]), LIMITS) == [True]
    assert run_tests("", Examination(pieces=[tests]), LIMITS) == [False]  # the control: the program is not there


def test_a_test_function_that_fails_counts():
    assert run_tests("def f(): return 2", Examination(pieces=["def test_f():\n    assert f() == 1"]), LIMITS) == [False]


def test_cpu_time_counts_and_not_the_load():
    """A program that needs half of its limit passes beside others that keep every core busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        work = "import time\nwhile time.process_time() < 0.5: pass\nprint(1)"
        assert run_python(work, "", Limits(seconds=1, memory_mib=400)).stdout == "1\n"
        assert run_python(work.replace("0.5", "60"), "", Limits(seconds=1, memory_mib=400)).stopped  # the control
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_long_output_is_read_whole():
    outcome = run_python("print('x' * 3_000_000)", "", LIMITS, output_bytes=1 << 23)
    assert len(outcome.stdout) == 3_000_001
    assert run_python("print('x' * 3_000_000)", "", LIMITS).exit_code != 0  # the control: a smaller limit


def test_a_process_that_could_not_be_confined_is_no_programs_fault(monkeypatch):
    monkeypatch.setattr("rlsync.sandbox.start._START", "import sys; sys.exit('this kernel has no Landlock')")
    with pytest.raises(SandboxError, match="no Landlock"):
        run_python("print(1)", "", LIMITS)


def test_a_program_that_meets_its_limit_before_its_tests_begin_fails(monkeypatch):
    """If this counted as a process that could not be started, a program could choose to get no reward."""

    def at_once(processes, limits):
        testing, serving = processes
        testing.kill()
        while text_of(serving.status) != CONFINED.decode():
            time.sleep(0.01)
        return True

    monkeypatch.setattr(run, "_watch", at_once)
    assert run_tests("def f(): return 1", Examination(pieces=["assert f() == 1"]), LIMITS) == []


def test_the_end_of_the_driver_is_the_end_of_its_programs(tmp_path):
    source = "from rlsync.sandbox.run import run_python\nfrom rlsync.sandbox.start import Limits\n"
    source += "run_python('import time; time.sleep(600)', '', Limits(seconds=600))"
    driver = subprocess.Popen([sys.executable, "-c", source], env=os.environ | {"TMPDIR": str(tmp_path)})
    deadline = time.monotonic() + 60
    while not (children := psutil.Process(driver.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert children
    assert not alive


def test_a_folder_of_any_depth_and_mode_is_removed(tmp_path):
    with scratch_folder() as folder:
        at = os.open(folder, os.O_RDONLY)
        for name in ("a", "b", "rlsync-sandbox-0"):
            os.mkdir(folder / name)
            (folder / name / "file").write_text("x")
        for _ in range(3000):
            os.mkdir("deep", dir_fd=at)
            inner = os.open("deep", os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = inner
        os.close(at)
        os.symlink("/etc", folder / "link")
        os.chmod(folder / "b", 0)
        assert overfull(folder)
    assert not folder.exists()
    assert os.path.isdir("/etc")


def test_a_folder_is_looked_through_in_bounded_time(tmp_path, monkeypatch):
    for index in range(MOST_ENTRIES):
        (tmp_path / str(index)).touch()
    assert not overfull(tmp_path)
    (tmp_path / "one more").touch()
    assert overfull(tmp_path)
    seen = []
    monkeypatch.setattr(scratch, "MOST_ENTRIES", 10)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(path) or scandir(path))
    assert overfull(tmp_path)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1\n2\n", "1\r\n2\r\n", True), ("1\n2", "1 \n2\n", True), ("\n1\n\n", "1", True), ("a b", "a  b", False),
        ("1  2", "1 2", True), ("0.5", "0.50", True), ("0.3333333", "0.33333333333", True),
        ("0.33", "0.3333333", False),
        ("3.0", "3", True), ("2.9999999", "3", False), ("1e3", "1000", True), ("1000.0005", "1000.0", True),
        ("nan", "nan", True), ("inf", "1e400", False), ("1e99999999999999999999", "1.0", False), ("1\n2", "1 2", False),
        ("", "", True), ("x", "", False), (" a", "a", True), ("b\n  a", "b\na", False), ("YES", "yes", False),
    ],
)  # fmt: skip
def test_outputs_are_compared_as_judges_do(printed, expected, same):
    assert same_output(printed, expected) is same


def test_the_walls_clock_is_generous_and_ends(monkeypatch):
    monkeypatch.setattr(run, "_WALL_FACTOR", 0)
    monkeypatch.setattr(run, "_WALL_EXTRA_S", 3.0)
    assert run_python("import time\nwhile True: time.sleep(0.001)", "", Limits(seconds=60)).stopped


def test_removal_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inner").mkdir()
    (folder / "inner" / "link").symlink_to(outside)
    remove(folder)
    assert (outside / "kept").read_text() == "x"
    assert not folder.exists()
