"""One reward function, whose exceptions become scores without a reward."""

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
    """A sample to score."""

    index: int
    """Index of the sample in the step."""
    problem: Problem
    completion: str


class Part:
    """A reward function with its weight in the sum.

    Args:
        name: Name of the function, for messages and metrics.
        weight: Weight in the sum.
        config: Configuration of the function.
        source: Source of the problems.

    Raises:
        ConfigError: The function cannot be loaded.
    """

    def __init__(self, name: str, weight: float, config: RewardFunctionConfig, source: ProblemSource) -> None:
        self.name, self.weight = name, weight
        self.batch_size = batch_size(config)
        built = build(config, source)
        self.function, self.threads, self._check = built.function, built.threads, built.check

    def check(self, problems: list[Problem], say: Callable[[str], None]) -> None:
        """Check the answers before any actor is started.

        Raises:
            DataError: The function cannot read an answer.
        """
        self._check(problems, say)

    def score(self, samples: list[ScoringRequest]) -> list[Score]:
        """Return one score for each sample; it has no reward if the function failed.

        Raises:
            WorkerDiedError: A reward model's process has died.
        """
        try:
            values = list(self.function([s.completion for s in samples], [s.problem for s in samples]))
            if len(values) != len(samples):
                raise ValueError(
                    f"it returned {len(values)} numbers for {len(samples)} samples, but must return one each"
                )
        except WorkerDiedError:
            raise
        except BaseException as error:  # noqa: BLE001  (the user's function may raise anything, even SystemExit)
            return [self._failed(sample, error) for sample in samples]
        return [self._checked(value, sample) for value, sample in zip(values, samples, strict=True)]

    def _checked(self, value: Any, sample: ScoringRequest) -> Score:
        try:
            return Score(reward=number(value))
        except Exception as error:  # noqa: BLE001  (an object of the user's may raise anything)
            return self._failed(sample, error)

    def _failed(self, sample: ScoringRequest, error: BaseException) -> Score:
        message = (
            f"{_described(error)} (sample: problem {sample.problem.id}, prompt "
            f"{shown(sample.problem.prompt)}, completion {shown(sample.completion)})"
        )
        if _IN_THREAD in message:
            message += ". Reward functions run in threads; if one needs signals, set reward.isolation=process"
        message = redacted(message)
        logger.warning("the reward function %s failed, so the sample has no reward: %s", self.name, message)
        return Score(reward=None, error=message)


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001  (__str__ of a user's exception class may raise anything)
        return type(error).__name__
