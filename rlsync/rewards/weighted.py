"""One reward function and what it says of some samples, whatever happens in it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlsync.config.reward import RewardFunctionConfig
from rlsync.data.problem import Problem
from rlsync.data.source import ProblemSource
from rlsync.errors import WorkerDiedError
from rlsync.redact import redacted
from rlsync.rewards.build import batch_size, build
from rlsync.rewards.number import number, shown
from rlsync.samples import Score

logger = logging.getLogger(__name__)

_IN_THREAD = "signal only works in main thread"


@dataclass(slots=True, kw_only=True)
class ScoringRequest:
    index: int
    """In the order of the requests."""
    problem: Problem
    completion: str


class Part:
    """A reward function with its weight in the sum.

    Raises:
        ConfigError: it cannot be loaded.
    """

    def __init__(self, name: str, weight: float, config: RewardFunctionConfig, source: ProblemSource) -> None:
        self.name, self.weight = name, weight
        self.batch_size = batch_size(config)
        built = build(config, source)
        self.function, self.threads, self._check = built.function, built.threads, built.check

    def check(self, problems: list[Problem], say: Callable[[str], None]) -> None:
        """Look at the answers before anything starts.

        Raises:
            DataError: one is of no form that the function can read.
        """
        self._check(problems, say)

    def score(self, samples: list[ScoringRequest]) -> list[Score]:
        """One score per sample, without a reward where the function failed.

        Raises:
            WorkerDiedError: the process that was to score them is gone.
        """
        try:
            values = list(self.function([s.completion for s in samples], [s.problem for s in samples]))
            if len(values) != len(samples):
                raise ValueError(f"it returned {len(values)} numbers for {len(samples)} samples; want one each")
        except WorkerDiedError:
            raise
        except BaseException as error:  # the user's function may even call sys.exit, and that must not end the run
            return [self._failed(sample, error) for sample in samples]
        return [self._checked(value, sample) for value, sample in zip(values, samples, strict=True)]

    def _checked(self, value: Any, sample: ScoringRequest) -> Score:
        try:
            return Score(reward=number(value))
        except Exception as error:  # what the user's function returned may raise anything
            return self._failed(sample, error)

    def _failed(self, sample: ScoringRequest, error: BaseException) -> Score:
        message = (
            f"{_described(error)} (sample: problem {sample.problem.id}, prompt "
            f"{shown(sample.problem.prompt)}, completion {shown(sample.completion)})"
        )
        if _IN_THREAD in message:
            message += ". Reward functions run in threads; set reward.isolation=process for one that needs signals"
        message = redacted(message)
        logger.warning("the reward function %s failed, the sample has no reward: %s", self.name, message)
        return Score(reward=None, error=message)


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # an exception class of the user's may raise in __str__
        return type(error).__name__
