"""Reward functions in processes: limited, confined, replaced, and ended without leaving anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from rlsync.config.compose import compose_train
from rlsync.config.data import DataConfig
from rlsync.config.reward import Isolation, RewardConfig, RewardKind
from rlsync.data.open_source import open_source
from rlsync.data.problem import Problem, Split
from rlsync.errors import ConfigError
from rlsync.rewards.cores import usable_cores
from rlsync.rewards.regex_reward import RegexReward
from rlsync.rewards.scorer import Scorer
from rlsync.rewards.task_reward import TaskReward

FUNCTIONS = """
import math, os, signal, time

def by_alarm(completion, problem):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)
    signal.alarm(0)
    return float(completion == problem.answer)

def by_math_verify(completion, problem):
    from math_verify import parse, verify
    return float(verify(parse(f"${problem.answer}$"), parse(f"${completion}$")))

def hangs(completion, problem):
    while completion == "hang":
        pass
    return 1.0

def dies(completion, problem):
    if completion == "die":
        os._exit(0)
    return 1.0

def odd(completion, problem):
    return {"nan": math.nan, "text": "1", "exit": None}.get(completion, 1)

async def waits(completion, problem):
    return 1.0

def batch(completions, problems):
    return [len(c) for c in completions]
"""


@pytest.fixture
def scorer_of(tmp_path, monkeypatch):
    (tmp_path / "rewards_in_processes.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)

    def make(name, **settings):
        settings = {"isolation": Isolation.process} | settings
        config = RewardConfig(kind=RewardKind.function, function=f"rewards_in_processes.py:{name}", **settings)
        return Scorer(config, open_source(DataConfig()))

    return make


def _score(scorer, *completions, answer="1"):
    return scorer.score([Problem(id="p", prompt="", answer=answer)] * len(completions), list(completions))


def _zombies():
    """Worker processes that have ended and that their host has not waited for."""
    hosts = [child for child in psutil.Process().children() if "worker_host" in " ".join(child.cmdline())]
    found = []
    for process in [worker for host in hosts for worker in host.children()]:
        with suppress(psutil.NoSuchProcess):
            found += [process.pid] if process.status() == psutil.STATUS_ZOMBIE else []
    return found


@pytest.mark.parametrize("name", ["by_alarm", "by_math_verify"])
def test_functions_that_use_signals_run_in_processes(name, scorer_of):
    assert [s.reward for s in _score(scorer_of(name), "1", "2")] == [1.0, 0.0]


def test_in_a_thread_the_message_says_which_to_take(scorer_of):
    with pytest.raises(Exception, match=r"set reward\.isolation=process"):
        _score(scorer_of("by_alarm", isolation=Isolation.thread), "1")


def test_a_function_that_hangs_is_killed_and_one_that_dies_costs_its_sample(scorer_of):
    hanging, dying = scorer_of("hangs", timeout_s=2.0), scorer_of("dies")
    scores = _score(hanging, "x", "hang", "x")
    assert [s.reward for s in scores] == [1.0, None, 1.0]
    assert "took longer than reward.timeout_s=2, and was killed" in scores[1].error
    scores = _score(dying, "x", "die", "x")
    assert [s.reward for s in scores] == [1.0, None, 1.0]
    assert "the process died" in scores[1].error
    assert _zombies() == []


def test_what_it_returns_is_checked_there_too(scorer_of):
    scores = _score(scorer_of("odd"), "x", "nan", "text", "exit")
    assert [s.reward for s in scores] == [1.0, None, None, None]
    assert "but must return a finite number" in scores[1].error
    assert "but must return a float" in scores[2].error
    assert [s.reward for s in _score(scorer_of("batch", batched=True, batch_size=2), "a", "bb", "ccc")] == [1, 2, 3]


def test_async_functions_are_for_threads(scorer_of):
    with pytest.raises(ConfigError, match=r"is async, but reward\.isolation=process"):
        scorer_of("waits")
    assert _score(scorer_of("waits", isolation=Isolation.thread), "x")[0].reward == 1.0


@pytest.mark.parametrize("kind", ["exact", "code"])
def test_isolation_is_for_functions(kind):
    with pytest.raises(ConfigError, match=r"reward\.isolation=process"):
        compose_train([f"reward={kind}", "reward.isolation=process"])


def test_a_regex_that_backtracks_for_ever_is_wrong_and_holds_nothing():
    reward = RegexReward(r"^(a+)+$", cpu_s=0.5)
    assert reward("a" * 60 + "b", Problem(id="p", prompt="", answer="a")) == 0.0
    assert reward("aaa", Problem(id="p", prompt="", answer="aaa")) == 1.0


@pytest.fixture(scope="module")
def countdown():
    source = open_source(DataConfig(task="countdown"))
    return TaskReward(source, 1.0), source.problems(Split.train, 1, 0)[0], source


def test_the_models_text_is_no_code(countdown, tmp_path):
    """In the driver, the expression would create the file; the time limit is for 9**9**9."""
    reward, problem, source = countdown
    right = source.score(problem, problem.answer)
    assert not reward.is_harmless
    assert reward(problem.answer, problem) == right == 1.0
    victim, target = tmp_path / "file", problem.metadata["metadata"]["target"]
    hostile = [
        f'__import__("os").system("touch {victim}")', f'open("{victim}", "w")', f'eval(\'open("{victim}", "w")\')',
        f'lambdify((), \'open("{victim}", "w")\')()', f'S("open(\'{victim}\', \'w\')")', "9**9**9", "exit()",
        f"(lambda: {target})()", '__import__("os")._exit(0)', "(1).__class__.__mro__[-1].__subclasses__()",
        "[c for c in ().__class__.__base__.__subclasses__()]", "Symbol('x').__class__", "globals()", "vars()",
        "[0] * 10**12", "(" * 5000 + "1" + ")" * 5000,
        "setattr(Integer, '__float__', 1)", "getattr(Integer, 'x')", "breakpoint()", "init_printing()", "preview(1)",
    ]  # fmt: skip
    for text in hostile:
        assert reward(text, problem) <= 0.05, text
    assert not victim.exists()
    assert reward(problem.answer, problem) == right


@pytest.mark.parametrize(
    "task", ["number_sorting", "n_queens", "intermediate_integration", "puzzle24", "spiral_matrix"]
)
def test_confined_scorers_say_what_they_say_in_the_driver(task):
    source = open_source(DataConfig(task=task))
    reward = TaskReward(source, 0)
    for problem in source.problems(Split.train, 3, 0):
        for completion in (problem.answer, f" {problem.answer}\n", "1", "[3, 1]", ""):
            assert reward(completion, problem) == source.score(problem, completion)


@pytest.mark.parametrize(("task", "harmless"), [("chain_sum", True), ("gcd", True), ("countdown", False)])
def test_only_scorers_that_compare_run_in_the_driver(task, harmless):
    assert TaskReward(open_source(DataConfig(task=task)), 0).is_harmless is harmless


def test_the_end_of_the_driver_is_the_end_of_its_workers(tmp_path):
    marker = tmp_path / "ready"
    source = f"""
from pathlib import Path
from threading import Thread
from rlsync.rewards.regex_reward import RegexReward
from rlsync.data.problem import Problem
reward = RegexReward("(a+)+$", cpu_s=600)
problem = Problem(id="p", prompt="", answer="a")
thread = Thread(target=reward, args=("a", problem))  # a scoring thread ends, and its workers stay
thread.start()
thread.join()
assert reward("a", problem) == 1.0
Path({str(marker)!r}).touch()
reward("a" * 60 + "b", problem)
"""
    driver = subprocess.Popen([sys.executable, "-c", source])
    deadline = time.monotonic() + 120
    while not marker.exists() and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.05)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert len(children) >= 2
    assert not psutil.wait_procs(children, timeout=20)[1]


def test_cores_are_those_that_the_process_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    version2 = tmp_path / "cpu.max"
    monkeypatch.setattr("rlsync.rewards.cores._QUOTAS", ((str(version2), None), (str(tmp_path / "no"), None)))
    for text, cores in (("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1), ("", 8)):
        version2.write_text(text)
        assert usable_cores() == cores
    quota, period = tmp_path / "quota", tmp_path / "period"
    monkeypatch.setattr("rlsync.rewards.cores._QUOTAS", ((str(quota), str(period)),))
    for value, cores in (("-1", 8), ("200000", 2)):
        quota.write_text(value)
        period.write_text("100000")
        assert usable_cores() == cores
