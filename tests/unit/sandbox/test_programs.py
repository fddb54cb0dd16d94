"""Hostile programs score 0 and honest ones 1 in both kinds of tests, and none leaves anything behind."""

import json
import os
import tempfile

import psutil
import pytest
from programs import HIDDEN, HONEST, HOSTILE

from rlsync.data.problem import Problem
from rlsync.rewards.code_reward import CodeReward
from rlsync.sandbox.confine import NEWEST_ABI
from rlsync.sandbox.start import Limits

ASSERTIONS = Problem(id="assertions", prompt="", answer=HIDDEN)
PRINTS = Problem(
    id="prints", prompt="", answer=json.dumps([{"input": f"{x}\n", "output": f"{y}\n"} for x, y in ((2, 5), (10, 21))])
)
CALLS = Problem(id="calls", prompt="", answer=json.dumps({"fn_name": "f", "inputs": [[2], [10]], "outputs": [5, 21]}))
MODES = {"assertions": ASSERTIONS, "prints": PRINTS, "calls": CALLS}
_PRINTED = "\nif __name__ == '__main__': print(f(int(input())))\n"


@pytest.fixture
def reward(tmp_path, monkeypatch):
    """f(program, problem) -> reward, which checks that the program leaves nothing behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(psutil.Process().children(recursive=True))

    def score(program, problem, **limits):
        code = CodeReward(Limits(**{"seconds": 0.5, "memory_mib": 400} | limits), partial=False)
        return code(program + (_PRINTED if problem is PRINTS else ""), problem)

    yield score
    assert os.listdir(tmp_path) == []
    assert {p for p in psutil.Process().children(recursive=True) if p.is_running()} <= before


@pytest.mark.parametrize("mode", ["assertions", "prints"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_score_nothing(name, mode, reward):
    assert reward(HOSTILE[name], MODES[mode]) == 0.0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_score_one(name, mode, reward):
    assert reward(HONEST[name], MODES[mode], seconds=5) == 1.0


@pytest.mark.parametrize(
    "tests",
    ["assert 5 in f(2)", "import numpy as np\nassert np.allclose(f(2), 5)", "assert abs(f(2) - 5) < 1e-6",
     "assert f(2) < 6", "import math\nassert math.isclose(f(2), 5)", "assert f(2) in {5}",
     "assert int(f(2)) == 5", "assert f(2) == f(2)"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["always equal", "contains everything", "array of its own", "number of its own"])
def test_an_object_has_no_say_in_how_it_compares(name, tests, reward):
    assert reward(HOSTILE[name], Problem(id="p", prompt="", answer=tests)) == 0.0


def test_wrong_programs_score_nothing(reward):
    """The control for the honest programs."""
    for problem in MODES.values():
        assert reward("def f(x): return 2 * x + 2", problem) == 0.0


@pytest.mark.parametrize("abi", range(1, NEWEST_ABI + 1))
def test_older_kernels_hold_programs_too(abi, tmp_path, reward):
    victim = tmp_path.parent / f"victim-{abi}"
    victim.write_text("here")
    library = os.path.realpath(json.__file__)
    size = os.path.getsize(library)
    program = f"""
import os
found = []
for path in ({str(victim)!r}, {library!r}):
    for flags in (os.O_RDONLY | os.O_TRUNC, 3 | os.O_TRUNC, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
        try:
            os.open(path, flags)
            found.append((path, flags))
        except OSError:
            pass
open("own", "w").write("a")
open("own", "w").write("b")
def f(x): return 2 * x + 1 if not found and open("own").read() == "b" else 0
"""
    assert reward(program, ASSERTIONS, landlock_abi=abi) == 1.0
    assert victim.read_text() == "here"
    assert os.path.getsize(library) == size


def test_nothing_can_be_read_but_the_library(tmp_path, reward):
    secret = tmp_path.parent / "secret.txt"
    secret.write_text("a token")
    here = os.path.dirname(os.path.abspath(__file__))
    paths = [str(secret), here, __file__, "/etc/passwd", "/proc/self/environ", "/", "/root", "/home", "/tmp",
             "/usr/bin", os.getcwd(), os.path.join(os.getcwd(), ".git")]  # fmt: skip
    program = f"""
import os
found = []
for path in {paths!r}:
    for read in (os.listdir, lambda p: open(p, "rb").read(1)):
        try:
            read(path)
            found.append(path)
        except OSError:
            pass
def f(x): return found if found else 2 * x + 1
"""
    assert reward(program, ASSERTIONS) == 1.0
    assert (
        reward("import json, numpy\ndef f(x): return 2 * x + 1 if open(json.__file__).read() else 0", ASSERTIONS) == 1.0
    )
