from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from rlsync.data.problem import Problem
from rlsync.errors import DataError
from rlsync.rewards.math_reward import MathReward


def problem(answer: str) -> Problem:
    return Problem(id="1", prompt="p", answer=answer)


@pytest.fixture(scope="module")
def reward() -> Iterator[MathReward]:
    reward = MathReward()
    yield reward
    reward.close()


@pytest.mark.parametrize(
    ("answer", "completion"),
    [
        ("1/2", "0.5"),
        ("1/2", "The answer is $\\frac{2}{4}$."),
        ("\\frac{1}{2}", "\\boxed{0.5}"),
        ("$x^2$", "$x \\cdot x$"),
        ("x^2", "so $x \\cdot x$"),
        ("(1,2)", "\\boxed{(1, 2)}"),
        ("\\boxed{7}", "7"),
        ("1,000", "1000"),
        ("-3", "that makes -3"),
        ("He pays $5*2=$<<5*2=10>>10\n#### 10", "The answer is 10"),
    ],
)
def test_equal(reward: MathReward, answer: str, completion: str) -> None:
    assert reward(completion, problem(answer)) == 1.0
    # Control: the same answer does not match everything.
    assert reward("\\boxed{123456}", problem(answer)) == 0.0


@pytest.mark.parametrize("completion", ["", "no idea", "$\\frac{", "\\boxed{}", "6"])
def test_unequal(reward: MathReward, completion: str) -> None:
    assert reward(completion, problem("5")) == 0.0


@pytest.mark.parametrize("answer", ["", "####"])
def test_answer_without_mathematics(reward: MathReward, answer: str) -> None:
    with pytest.raises(ValueError, match="finds no mathematics"):
        reward("5", problem(answer))


def test_from_many_threads(reward: MathReward) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: reward(f"${i}$", problem(str(i % 2 * i))), range(40)))
    assert found == [float(i % 2 or i == 0) for i in range(40)]


def test_an_endless_computation_is_wrong_and_the_next_is_scored(caplog: pytest.LogCaptureFixture) -> None:
    reward = MathReward(cpu_s=0.5)
    with caplog.at_level(logging.WARNING):
        assert reward("$9^{9^{9}}$", problem("5")) == 0.0
    assert "used more than 0.5 s of CPU time" in caplog.text
    assert reward("5", problem("5")) == 1.0
    reward.close()


def test_answers_are_compared_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers are busy with endless answers while a third one answers."""
    monkeypatch.setattr("rlsync.rewards.confined.usable_cores", lambda: 3)
    reward = MathReward(cpu_s=60)
    with ThreadPoolExecutor(3) as threads:
        slow = [threads.submit(reward, "$9^{9^{9}}$", problem("5")) for _ in range(2)]
        assert threads.submit(reward, "5", problem("5")).result() == 1.0
        assert not any(each.done() for each in slow)
        reward.close()
        assert [each.result() for each in slow] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("answer", "completion", "wanted"),
    [
        ("1331 and 1728", r"\boxed{1728}", 0), ("2", "The answer is 2 2/3", 0), ("8/3", "The answer is 2 2/3", 1),
        (r"\frac{1}{2004!}", r"\boxed{\frac{1}{2006!}}", 0), (r"\frac{1}{2004!}", r"\boxed{\frac{1}{2004!}}", 1),
        ("0.0000001", r"\boxed{0.0000002}", 0), ("0.0000001", r"\boxed{10^{-7}}", 1), ("0", r"\boxed{0.0000001}", 0),
        ("n=2, 3, 4", r"\boxed{n=1, 2, 3}", 0), ("12:00", r"\boxed{1:00}", 0), (r"\pm 2021", r"\boxed{2021}", 0),
        ("4", r"$4\sqrt(2)$", 0), (r"4\sqrt{2}", r"$4\sqrt(2)$", 1), ("3x-y+13=0", r"\boxed{3x+4y+14=0}", 0),
        ("42", r"\boxed{41} or \boxed{42}", 0), ("42", r"\boxed{41}, \boxed{42}", 0),
        ("7", r"first \boxed{3} ... so \boxed{7}", 1), ("3", r"first \boxed{3} ... so \boxed{7}", 0),
        ("28%", r"\boxed{28\%}", 1), ("28%", "28 percent", 1), (r"28\%", r"\boxed{28\%}", 1),
        ("2.5", r"\boxed{2\frac{1}{2}}", 1), ("73", "The answer is **73**.", 1), ("004", r"\boxed{4}", 1),
        ("C", r"\boxed{\text{C}}", 1), ("C", r"\boxed{C}", 1), ("C", r"\boxed{D}", 0), ("(C)", r"\boxed{C}", 1),
        ("C", "The answer is C.", 1), ("C", "The answer is (C)", 1), ("C", "The answer is: C. Paris", 1),
        ("yes", r"\boxed{yes}", 1), ("yes", r"\boxed{sey}", 0), ("yes", "The answer is Yes.", 1), ("Paris", "paris", 1),
        ("$5.50", "5.5", 1), ("1e-05", r"\boxed{10^{-5}}", 1), ("1e-05", r"\boxed{0.00001}", 1), ("1.5e3", "1500", 1),
        (r"5 \text{ cm}", r"\boxed{5}", 1), (r"90^\circ", r"\boxed{90}", 1), (r"\{1,2\}", r"\boxed{1, 2}", 1),
        ("1234", r"\boxed{1,234}", 1), ("18", "The answer is 18 dollars.", 1),
    ],
)  # fmt: skip
def test_what_a_person_would_say(reward: MathReward, answer: str, completion: str, wanted: float) -> None:
    assert reward(completion, problem(answer)) == wanted


def test_a_box_may_be_demanded() -> None:
    reward = MathReward(boxed=True)
    for completion, wanted in ((r"\boxed{5}", 1), ("so 5", 0), ("I cannot. 5", 0), (r"\boxed{5", 0), ("$5$", 0)):
        assert reward(completion, problem("5")) == wanted
    assert reward("The answer is C", problem("C")) == 0
    reward.close()


def test_answers_that_nothing_matches_are_error_context_once(reward: MathReward) -> None:
    said: list[str] = []
    good = [Problem(id=str(i), prompt="p", answer=str(i)) for i in range(3)]
    bad = Problem(id="x", prompt="p", answer="####", origin="row 7 of data.path=p, column 'answer'")
    reward.check([*good, bad], said.append)
    assert len(said) == 1
    assert "1 of the answers: row 7 of data.path=p, column 'answer': '####'" in said[0]
    with pytest.raises(DataError, match="no completion can match"):
        reward.check([bad], said.append)
    reward.check([*good, problem("yes"), problem("1e-05"), problem("C"), problem(r"\frac{1}{2}")], said.append)
    assert len(said) == 1  # the control


def test_an_answer_that_ends_its_process_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    reward = MathReward()
    assert reward("5", problem("5")) == 1.0
    (host,) = [child for child in psutil.Process().children() if "worker_host" in " ".join(child.cmdline())][-1:]
    (worker,) = host.children()
    worker.kill()
    with caplog.at_level(logging.WARNING):
        scores = [reward("5", problem("5")) for _ in range(reward._job.size + 1)]
    assert sorted(scores)[:2] == [0.0, 1.0]  # only one sample met the dead process
    assert "the process died" in caplog.text
    reward.close()
