"""The endless stream of training problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlsync.data.hashing import digest
from rlsync.data.mixture import part_at
from rlsync.data.problem import Problem
from rlsync.errors import DataError


@dataclass(slots=True, kw_only=True)
class PromptState:
    """Where a stream stands; saved in checkpoints. The rest follows from the problems, the weights and the seed."""

    index: int = 0
    """Problems handed out so far."""
    data: str = ""
    """A digest of the seed and of those problems."""


class PromptStream:
    """Goes through the problems again and again.

    The first epoch has their own order, so a stream over more of a source's problems begins as one over fewer: a run
    can go on for longer than it was to. The others are ordered by a hash of seed, epoch and problem id. The parts of a
    mixture take turns by weight, and each has its own epochs.

    Args:
        problems: as the source orders them, by the seed.
        weights: part of a mixture -> its weight; of other data, whose problems have no part, nothing need be said.
    Raises:
        DataError: there are no problems.
    """

    def __init__(self, problems: list[Problem], seed: int, weights: Mapping[str, float] | None = None) -> None:
        if not problems:
            raise DataError("there are no training problems to stream; check data.path and the split percentages")
        self._seed = seed
        self._weights = weights or {"": 1.0}
        self._parts = {
            name: _Part(name, [problem for problem in problems if problem.part == name], seed) for name in self._weights
        }
        self._index, self._drawn = 0, digest("stream", seed)

    def state(self) -> PromptState:
        return PromptState(index=self._index, data=f"{self._drawn:016x}")

    def restore(self, state: PromptState) -> None:
        """Go on from a saved state; of a stream that has handed out nothing.

        Raises:
            DataError: with these problems, weights and this seed, others would have been handed out.
        """
        self.next(state.index)
        if self.state() != state:
            raise DataError(
                f"the checkpoint's prompt stream, {state.index} problems on, is over other data than this run's: its "
                "problems so far would be others now. Resume with the same data config and seed, and over the same rows"
            )

    def next(self, count: int) -> list[Problem]:
        """The next `count` problems; a batch may reach over the end of an epoch."""
        problems = []
        for index in range(self._index, self._index + count):
            problem = self._parts[part_at(self._seed, index, self._weights)].next()
            self._drawn = digest(self._drawn, problem.part, problem.id)
            problems.append(problem)
        self._index += count
        return problems


class _Part:
    """One part's problems, epoch after epoch."""

    def __init__(self, name: str, problems: list[Problem], seed: int) -> None:
        self._name, self._problems, self._seed = name, problems, seed
        self._epoch, self._order = 0, problems
        self._taken = 0

    def next(self) -> Problem:
        if not self._problems:
            raise DataError(
                f"data.parts.{self._name} has no training problems; add rows to it, or remove it from data.parts"
            )
        epoch, position = divmod(self._taken, len(self._problems))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = sorted(self._problems, key=lambda p: digest("epoch", self._seed, epoch, p.id))
        self._taken += 1
        return self._order[position]
