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
        """One score per sample; a sample on which a function fails gets 0.0 and the error.

        Raises:
            RewardError: a function failed on every sample.
        """
        samples = list(zip(problems, completions, strict=True))
        columns = [part.score(samples) for part in self._parts]
        return [self._sum(scores) for scores in zip(*columns, strict=True)]

    def _sum(self, scores: tuple[Score, ...]) -> Score:
        errors = [score.error for score in scores if score.error is not None]
        if errors:
            return Score(reward=0.0, error=errors[0])
        total = sum(part.weight * score.reward for part, score in zip(self._parts, scores, strict=True))
        parts = {p.name: s.reward for p, s in zip(self._parts, scores, strict=True)} if self._sums else {}
        return Score(reward=total, parts=parts)


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
        errors = [score.error for score in scores if score.error is not None]
        if errors and len(errors) == len(scores):
            raise RewardError(
                f"the reward function {self.name} failed on all {len(scores)} samples; the first: {errors[0]}. "
                "Call it on this sample by itself to see the traceback; it must return a finite number"
            )
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
            logger.warning("the reward function %s failed, the sample gets 0.0: %s", self.name, message)
            return Score(reward=0.0, error=message)


def shuffle_rewards(scores: list[Score], seed: int) -> list[Score]:
    """The rewards permuted among the samples, the same way for the same seed; errors stay with their samples."""
    order = sorted(range(len(scores)), key=lambda index: digest("shuffle_rewards", seed, index))
    return [Score(reward=scores[other].reward, error=score.error) for score, other in zip(scores, order, strict=True)]


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
