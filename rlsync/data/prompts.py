"""The endless stream of training problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rlsync.data.hashing import digest
from rlsync.data.mixture import part_at
from rlsync.errors import DataError
from rlsync.types import Problem


@dataclass(slots=True, kw_only=True)
class PromptState:
    """Where a stream stands; saved in checkpoints. The rest follows from the problems, the weights and the seed."""

    index: int = 0
    """Problems handed out so far."""
    data: str = ""
    """A digest of problems, weights and seed."""


class PromptStream:
    """Goes through the problems again and again, each epoch in an order of its own.

    The order is by a hash of seed, epoch and problem id: the same whatever order the problems came in. The parts of a
    mixture take turns by weight, and each has its own epochs.

    Args:
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
        self._data = _digest(problems, seed, self._weights)
        self._index = 0

    def state(self) -> PromptState:
        return PromptState(index=self._index, data=self._data)

    def restore(self, state: PromptState) -> None:
        """Go on from a saved state.

        Raises:
            DataError: the state was saved over other problems, weights or seed than there are now.
        """
        if state.index < 0 or state.data != self._data:
            raise DataError(
                f"the checkpoint's prompt stream, {state.index} problems on, is over other data than this run's. "
                "Resume with the same data config and seed, and the same algorithm.prompts_per_step and trainer.steps, "
                "which decide how many problems are drawn"
            )
        self._index = state.index
        taken = Counter(part_at(self._seed, index, self._weights) for index in range(state.index))
        for name, part in self._parts.items():
            part.taken = taken[name]

    def next(self, count: int) -> list[Problem]:
        """The next `count` problems; a batch may reach over the end of an epoch."""
        first, self._index = self._index, self._index + count
        return [self._parts[part_at(self._seed, index, self._weights)].next() for index in range(first, self._index)]


class _Part:
    """One part's problems, epoch after epoch. `taken`, how many it gave so far, is all its state."""

    def __init__(self, name: str, problems: list[Problem], seed: int) -> None:
        self._name, self._problems, self._seed = name, problems, seed
        self._epoch = -1
        self._order: list[Problem] = []
        self.taken = 0

    def next(self) -> Problem:
        if not self._problems:
            raise DataError(
                f"data.parts.{self._name} has no training problems; add rows to it, or remove it from data.parts"
            )
        epoch, position = divmod(self.taken, len(self._problems))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = sorted(self._problems, key=lambda p: digest("epoch", self._seed, epoch, p.id))
        self.taken += 1
        return self._order[position]


def _digest(problems: list[Problem], seed: int, weights: Mapping[str, float]) -> str:
    names = [f"{problem.part}/{problem.id}" for problem in problems]
    shares = [f"{name}={weight!r}" for name, weight in weights.items()]
    return f"{digest('stream', seed, *sorted(shares), *sorted(names)):016x}"
