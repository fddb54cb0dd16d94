from __future__ import annotations

import logging
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

from rlsync.config.data import DataConfig
from rlsync.config.reward import RewardConfig, RewardKind
from rlsync.data.problem import Problem, Split
from rlsync.errors import ConfigError, RewardError
from rlsync.rewards.scorer import Scorer, shuffle_rewards
from rlsync.samples import Score

PROBLEMS = [Problem(id=f"id{i}", prompt=f"prompt {i}", answer=str(i)) for i in range(4)]


class ExactSource:
    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        return PROBLEMS[:count]

    def scored_confined(self) -> dict[str, DataConfig]:
        return {}

    def score(self, problem: Problem, completion: str) -> float:
        return float(problem.answer == completion)


@pytest.fixture
def scorer_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, Problem], Any]], Scorer]:
    def make(function: Callable[[str, Problem], Any]) -> Scorer:
        module = types.ModuleType("user_rewards")
        vars(module)["f"] = function
        monkeypatch.setitem(sys.modules, "user_rewards", module)
        return Scorer(RewardConfig(kind=RewardKind.function, function="user_rewards:f"), ExactSource())

    return make


def test_task_reward() -> None:
    scores = Scorer(RewardConfig(), ExactSource()).score(PROBLEMS, ["0", "1", "x", "3"])
    assert [score.reward for score in scores] == [1.0, 1.0, 0.0, 1.0]
    assert all(score.error is None for score in scores)
    assert Scorer(RewardConfig(), ExactSource()).score([], []) == []


def test_math_reward() -> None:
    scorer = Scorer(RewardConfig(kind=RewardKind.math_verify), ExactSource())
    assert [score.reward for score in scorer.score(PROBLEMS[1:3], ["so $\\frac{3}{3}$", "3"])] == [1.0, 0.0]


def test_an_answer_that_math_verify_cannot_parse_costs_its_sample() -> None:
    problems = [Problem(id="bad", prompt="p", answer=""), PROBLEMS[2]]
    bad, good = Scorer(RewardConfig(kind=RewardKind.math_verify), ExactSource()).score(problems, ["2", "2"])
    assert (bad.reward, good.reward) == (None, 1.0)
    assert "finds no mathematics in the problem's answer ''" in str(bad.error)


def test_unknown_function() -> None:
    with pytest.raises(ConfigError, match=r"reward\.function"):
        Scorer(RewardConfig(kind=RewardKind.function, function="absent_module:f"), ExactSource())


@pytest.mark.parametrize(
    ("value", "reward"),
    [
        (1, 1.0),
        (True, 1.0),
        (numpy.float32(0.5), 0.5),
        (numpy.int64(2), 2.0),
        (numpy.bool_(True), 1.0),
        (numpy.array(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor(True), 1.0),
    ],
)
def test_numbers_are_taken(scorer_of: Any, value: Any, reward: float) -> None:
    assert scorer_of(lambda completion, problem: value).score(PROBLEMS[:1], ["x"]) == [Score(reward=reward)]


def test_a_failing_sample_has_no_reward_but_its_error(scorer_of: Any, caplog: pytest.LogCaptureFixture) -> None:
    def function(completion: str, problem: Problem) -> float:
        if problem.id == "id2":
            raise KeyError("gold")
        return 1.0

    with caplog.at_level(logging.WARNING):
        scores = scorer_of(function).score(PROBLEMS, ["a", "b", "c" * 1000, "d"])
    assert [score.reward for score in scores] == [1.0, 1.0, None, 1.0]
    assert [score.error is None for score in scores] == [True, True, False, True]
    assert scores[2].error.startswith("KeyError: 'gold' (sample: problem id2, prompt 'prompt 2', completion 'ccc")
    assert len(scores[2].error) < 500
    assert "id2" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "TypeError: it returned None .NoneType., but must return a float"),
        ("1", "TypeError: it returned '1'"),
        (float("nan"), "ValueError: it returned nan, but must return a finite number"),
        (float("inf"), "ValueError: it returned inf"),
        (10**400, "OverflowError: int too large to convert to float"),
        (numpy.array([1.0]), "TypeError: it returned array"),
        (torch.tensor([1.0]), "TypeError: it returned tensor"),
        (torch.tensor(float("nan")), "ValueError: it returned nan"),
        (torch.empty((), device="meta"), "Tensor.item.. cannot be called on meta tensors"),
        (numpy.str_("1"), "TypeError: it returned '1' .str."),
        (1j, "TypeError"),
    ],
)
def test_bad_values(scorer_of: Any, value: Any, message: str) -> None:
    scorer = scorer_of(lambda completion, problem: value if completion == "bad" else 1.0)
    good, bad = scorer.score(PROBLEMS[:2], ["good", "bad"])
    assert good == Score(reward=1.0)
    assert bad.reward is None
    # Control: if the bad sample is the only one, all samples have failed.
    with pytest.raises(RewardError, match=message):
        scorer.score(PROBLEMS[:1], ["bad"])


def test_an_error_that_cannot_be_told_and_one_with_a_secret(scorer_of: Any) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    def function(completion: str, problem: Problem) -> float:
        if completion == "odd":
            raise OddError
        if completion == "secret":
            raise ValueError("https://user:hunter2@host/x failed")
        return 1.0

    scores = scorer_of(function).score(PROBLEMS[:3], ["odd", "secret", "x"])
    assert [score.reward for score in scores] == [None, None, 1.0]
    assert scores[0].error.startswith("OddError (sample")
    assert "hunter2" not in scores[1].error


def test_failing_everywhere_ends_the_run(scorer_of: Any) -> None:
    scorer = scorer_of(lambda completion, problem: 1 / 0)
    with pytest.raises(
        RewardError, match=r"user_rewards:f failed for all 4 .*ZeroDivisionError.*id0.*finite"
    ) as caught:
        scorer.score(PROBLEMS, ["a"] * 4)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_lists_of_unequal_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        Scorer(RewardConfig(), ExactSource()).score(PROBLEMS, ["a"])


def test_shuffle_permutes_rewards_and_leaves_errors() -> None:
    scores = [Score(reward=float(i)) for i in range(50)]
    scores[3] = Score(reward=None, error="e")
    shuffled = shuffle_rewards(scores, seed=1)
    assert shuffled[3] == scores[3]
    rewards = [score.reward for score in shuffled if score.reward is not None]
    assert sorted(rewards) == [score.reward for score in scores if score.reward is not None]
    assert rewards != sorted(rewards)
    assert [score.error for score in shuffled] == [score.error for score in scores]
    assert shuffled == shuffle_rewards(scores, seed=1)
    assert shuffled != shuffle_rewards(scores, seed=2)
    assert scores[0].reward == 0.0
