"""Rewards of samples, whichever function gives them."""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from numbers import Real
from typing import Any

from rlsync.config.reward import RewardConfig, RewardFunctionConfig
from rlsync.data.hashing import digest
from rlsync.data.source import ProblemSource
from rlsync.errors import RewardError
from rlsync.rewards.build import reward_function, samples_at_a_time
from rlsync.types import Problem, Score

logger = logging.getLogger(__name__)

SHOWN = 300
"""Characters of a text that a message shows."""


class Scorer:
    """Scores samples with the function that the config names, or with the weighted sum of several.

    Raises:
        ConfigError: a function cannot be loaded.
    """

    def __init__(self, config: RewardConfig, source: ProblemSource) -> None:
        self._parts = [_Part(name, part.weight, part, source) for name, part in config.parts.items()]
        self._sums = bool(self._parts)
        if not self._sums:
            self._parts = [_Part(config.function or config.kind, 1.0, config, source)]

    def score(self, problems: list[Problem], completions: list[str]) -> list[Score]:
        """One score per sample; one on which a function fails has no reward, but the error.

        Raises:
            RewardError: no sample has a reward.
        """
        samples = list(zip(problems, completions, strict=True))
        columns = [part.score(samples) for part in self._parts]
        scores = [self._sum(each) for each in zip(*columns, strict=True)]
        if scores and all(score.reward is None for score in scores):
            raise RewardError(
                f"{self._parts_named} failed on all {len(scores)} samples; the first: {scores[0].error}. Call it on "
                "this sample by itself to see the traceback; it must return a finite number"
            )
        return scores

    def _sum(self, scores: tuple[Score, ...]) -> Score:
        total, parts = 0.0, {}
        for part, score in zip(self._parts, scores, strict=True):
            if score.reward is None:
                return score
            total += part.weight * score.reward
            parts[part.name] = score.reward
        return Score(reward=total, parts=parts if self._sums else {})

    @property
    def _parts_named(self) -> str:
        names = " or ".join(part.name for part in self._parts)
        return f"the reward function {names}"


class _Part:
    """One reward function with its weight."""

    def __init__(self, name: str, weight: float, config: RewardFunctionConfig, source: ProblemSource) -> None:
        self.name, self.weight = name, weight
        self._function = reward_function(config, source)
        self._threads = samples_at_a_time(config)

    def score(self, samples: list[tuple[Problem, str]]) -> list[Score]:
        if self._threads == 1:
            scores = [self._one(sample) for sample in samples]
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                scores = list(pool.map(self._one, samples))
        return scores

    def _one(self, sample: tuple[Problem, str]) -> Score:
        problem, completion = sample
        try:
            return Score(reward=_number(self._function(completion, problem)))
        except Exception as error:  # the user's function may raise anything, and one sample must not end the run
            message = (
                f"{type(error).__name__}: {error} (sample: problem {problem.id}, prompt {_shown(problem.prompt)}, "
                f"completion {_shown(completion)})"
            )
            logger.warning("the reward function %s failed, the sample has no reward: %s", self.name, message)
            return Score(reward=None, error=message)


def shuffle_rewards(scores: list[Score], seed: int) -> list[Score]:
    """The rewards permuted among the samples that have one, the same way for the same seed."""
    own = [index for index, score in enumerate(scores) if score.reward is not None]
    order = sorted(own, key=lambda index: digest("shuffle_rewards", seed, index))
    others = dict(zip(own, order, strict=True))
    return [Score(reward=scores[others.get(index, index)].reward, error=s.error) for index, s in enumerate(scores)]


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
