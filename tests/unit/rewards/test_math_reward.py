from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlsync.rewards.math_reward import MathReward
from rlsync.types import Problem


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
    # Control: the same answer does not take everything.
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


def test_an_endless_computation_is_wrong_and_the_next_is_scored() -> None:
    reward = MathReward(seconds=1.0)
    start = time.perf_counter()
    assert reward("$9^{9^{9}}$", problem("5")) == 0.0
    assert reward("5", problem("5")) == 1.0
    assert time.perf_counter() - start < 20
    reward.close()


def test_a_dead_process_is_replaced() -> None:
    reward = MathReward()
    assert reward("5", problem("5")) == 1.0
    assert reward._worker is not None
    reward._worker[0].kill()
    reward._worker[0].join()
    with pytest.raises(RuntimeError, match="process died"):
        reward("5", problem("5"))
    assert reward("5", problem("5")) == 1.0
    reward.close()
