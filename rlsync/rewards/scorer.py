"""Rewards of samples, whichever function gives them."""

from __future__ import annotations

import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor
from numbers import Real
from typing import Any

from rlsync.config.reward import RewardConfig, RewardKind
from rlsync.data.hashing import digest
from rlsync.data.source import ProblemSource
from rlsync.errors import RewardError
from rlsync.rewards.functions import RewardFunction, load_function
from rlsync.types import Problem, Score

logger = logging.getLogger(__name__)

SHOWN = 300
"""Characters of a text that a message shows."""


class Scorer:
    """Scores samples with the function that the config names.

    Raises:
        ConfigError: reward.function cannot be loaded.
    """

    def __init__(self, config: RewardConfig, source: ProblemSource) -> None:
        self._config = config
        self._function = _reward_function(config, source)

    def score(self, problems: list[Problem], completions: list[str]) -> list[Score]:
        """One score per sample; a sample on which the function fails gets 0.0 and the error.

        Raises:
            RewardError: the function failed on every sample.
        """
        scores = self._scores(list(zip(problems, completions, strict=True)))
        errors = [score.error for score in scores if score.error is not None]
        if errors and len(errors) == len(scores):
            name = self._config.function or self._config.kind
            raise RewardError(
                f"the reward function {name} failed on all {len(scores)} samples; the first: {errors[0]}. "
                "Call it on this sample by itself to see the traceback; it must return a finite number"
            )
        return scores

    def _scores(self, samples: list[tuple[Problem, str]]) -> list[Score]:
        if self._config.kind is not RewardKind.code:
            return [self._score(*sample) for sample in samples]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # each program is a process of its own
            return list(pool.map(lambda sample: self._score(*sample), samples))

    def _score(self, problem: Problem, completion: str) -> Score:
        try:
            return Score(reward=_number(self._function(completion, problem)))
        except Exception as error:  # the user's function may raise anything, and one sample must not end the run
            message = (
                f"{type(error).__name__}: {error} (sample: problem {problem.id}, prompt {_shown(problem.prompt)}, "
                f"completion {_shown(completion)})"
            )
            logger.warning("the reward function failed, the sample gets 0.0: %s", message)
            return Score(reward=0.0, error=message)


def shuffle_rewards(scores: list[Score], seed: int) -> list[Score]:
    """The rewards permuted among the samples, the same way for the same seed; errors stay with their samples."""
    order = sorted(range(len(scores)), key=lambda index: digest("shuffle_rewards", seed, index))
    return [Score(reward=scores[other].reward, error=score.error) for score, other in zip(scores, order, strict=True)]


def _reward_function(config: RewardConfig, source: ProblemSource) -> RewardFunction:
    match config.kind:
        case RewardKind.task:
            return lambda completion, problem: source.score(problem, completion)
        case RewardKind.exact:
            return lambda completion, problem: float(completion.strip() == problem.answer)
        case RewardKind.code:
            from rlsync.rewards.code_reward import CodeReward
            from rlsync.rewards.sandbox import Limits

            limits = Limits(seconds=config.code_timeout_s, memory_mib=config.code_memory_mib)
            return CodeReward(limits, partial=config.code_partial)
        case RewardKind.function:
            return load_function(config.function)
        case RewardKind.math_verify:
            # Half a second to import sympy, which other rewards need not pay.
            from rlsync.rewards.math_reward import MathReward

            return MathReward()


def _number(value: Any) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"it returned {_shown(value)} ({type(value).__name__}), want a float")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"it returned {number}, want a finite number")
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
