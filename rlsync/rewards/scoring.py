"""Score a step's samples while others are still being generated.

Which samples one call of a reward function gets does not depend on the order in which they finish, so the scores do not
depend on timing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from threading import TIMEOUT_MAX
from types import TracebackType
from typing import Protocol

from rlsync.data.problem import Problem
from rlsync.errors import RewardError
from rlsync.rewards.pool import Pool
from rlsync.rewards.weighted import ScoringRequest
from rlsync.samples import Episode, Score


class ScoringPart(Protocol):
    """The interface of a reward function that scoring uses."""

    name: str
    weight: float
    threads: int
    batch_size: int

    def score(self, samples: list[ScoringRequest]) -> list[Score]:
        """Return one score for each sample."""
        ...


@dataclass(slots=True, kw_only=True)
class _Scored:
    scores: list[Score]
    seconds: float


@dataclass(slots=True, kw_only=True)
class _Batch:
    samples: list[ScoringRequest]
    future: Future[_Scored]


class Scoring:
    """Takes samples in any order, scores them in threads, and returns the scores in the order of the problems.

    Args:
        parts: Reward functions; several make a weighted sum.
        problems: Problem of each sample.
        sums: Report the scores of the parts.
        timeout_s: Longest wait in seconds for scores after all samples have arrived.
    """

    def __init__(
        self, parts: Sequence[ScoringPart], problems: list[Problem], *, sums: bool, timeout_s: float = math.inf
    ) -> None:
        self._parts, self._problems, self._sums = parts, problems, sums
        self._samples: dict[int, ScoringRequest] = {}
        self._errors: dict[int, str] = {}
        self._pools: list[Pool[_Scored]] = [Pool(part.threads) for part in parts]
        self._futures: list[list[_Batch]] = [[] for _ in parts]
        self._timeout_s = timeout_s
        self.seconds = 0.0
        """Time that the functions took, summed over calls; complete after `finish`."""

    def __enter__(self) -> Scoring:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pool in self._pools:
            pool.close()

    def add(self, index: int, completion: str) -> None:
        """Add the finished sample `index`."""
        self._samples[index] = ScoringRequest(index=index, problem=self._problems[index], completion=completion)
        self._start_batches(index)

    def take(self, index: int, episode: Episode) -> None:
        """Add a finished episode. It is not scored if its environment failed."""
        if episode.error is None:
            self.add(index, episode.scored)
        else:
            self._errors[index] = episode.error
            self._start_batches(index)

    def finish(self) -> list[Score]:
        """Wait for the scores, and return one for each problem.

        Raises:
            RewardError: No sample that was scored has a reward.
            WorkerDiedError: A reward model's process has died.
        """
        deadline = time.monotonic() + self._timeout_s
        columns = [self._column(batches, deadline) for batches in self._futures]
        scores = [self._score(index, columns) for index in range(len(self._problems))]
        if self._samples and all(score.reward is None for score in scores):
            names = " or ".join(part.name for part in self._parts)
            first = scores[min(self._samples)]
            raise RewardError(
                f"the reward function {names} failed for all {len(self._samples)} samples; the first error: "
                f"{first.error}. To see the traceback, call it directly with this sample. It must return a finite "
                "number"
            )
        return scores

    def _start_batches(self, index: int) -> None:
        """Start scoring the batch of sample `index` if all samples of the batch are finished."""
        for part, pool, futures in zip(self._parts, self._pools, self._futures, strict=True):
            begin = index - index % part.batch_size
            batch = range(begin, min(begin + part.batch_size, len(self._problems)))
            samples = [self._samples[i] for i in batch if i in self._samples]
            if samples and all(i in self._samples or i in self._errors for i in batch):
                futures.append(_Batch(samples=samples, future=pool.submit(partial(_timed, part, samples))))

    def _column(self, batches: list[_Batch], deadline: float) -> dict[int, Score]:
        """Return one part's scores by sample; samples of a batch that is not scored by the deadline get no reward."""
        column: dict[int, Score] = {}
        late = Score(reward=None, error=f"not scored within reward.finish_timeout_s={self._timeout_s:g}")
        for batch in batches:
            try:
                done = batch.future.result(max(0.0, min(deadline - time.monotonic(), TIMEOUT_MAX)))
            except TimeoutError:
                column |= {sample.index: late for sample in batch.samples}
                continue
            self.seconds += done.seconds
            column |= {s.index: score for s, score in zip(batch.samples, done.scores, strict=True)}
        return column

    def _score(self, index: int, columns: list[dict[int, Score]]) -> Score:
        if index in self._errors:
            return Score(reward=None, error=self._errors[index])
        total, parts = 0.0, {}
        for part, column in zip(self._parts, columns, strict=True):
            score = column[index]
            if score.reward is None:
                return score
            total += part.weight * score.reward
            parts[part.name] = score.reward
        return Score(reward=total, parts=parts if self._sums else {})


def _timed(part: ScoringPart, samples: list[ScoringRequest]) -> _Scored:
    started = time.perf_counter()
    scores = part.score(samples)
    return _Scored(scores=scores, seconds=time.perf_counter() - started)
