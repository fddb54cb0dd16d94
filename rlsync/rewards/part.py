"""One reward function and what it says of some samples, whatever happens in it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch

from rlsync.config.reward import RewardFunctionConfig
from rlsync.data.source import ProblemSource
from rlsync.errors import WorkerDiedError
from rlsync.rewards.build import batch_function, batch_size, threads
from rlsync.types import Problem, Score

logger = logging.getLogger(__name__)

SHOWN = 300
"""Characters of a text that a message shows."""


@dataclass(slots=True, kw_only=True)
class Sample:
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
        self.threads, self.batch_size = threads(config), batch_size(config)
        self.function = batch_function(config, source)

    def score(self, samples: list[Sample]) -> list[Score]:
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

    def _checked(self, value: Any, sample: Sample) -> Score:
        try:
            return Score(reward=_number(value))
        except Exception as error:  # what the user's function returned may raise anything
            return self._failed(sample, error)

    def _failed(self, sample: Sample, error: BaseException) -> Score:
        message = (
            f"{type(error).__name__}: {error} (sample: problem {sample.problem.id}, prompt "
            f"{_shown(sample.problem.prompt)}, completion {_shown(sample.completion)})"
        )
        logger.warning("the reward function %s failed, the sample has no reward: %s", self.name, message)
        return Score(reward=None, error=message)


def _number(value: Any) -> float:
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, Real):
        raise TypeError(f"it returned {_shown(value)} ({type(value).__name__}), want a float")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"it returned {number}, want a finite number")
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
