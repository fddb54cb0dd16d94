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
    """Position of a stream, which checkpoints save. The rest follows from the problems, the weights and the seed."""

    index: int = 0
    """Number of problems drawn so far."""
    data: str = ""
    """Digest of the seed and of the problems drawn so far, in hex."""


class PromptStream:
    """Yields the problems in epochs, without end.

    The first epoch is in the order of `problems`, so a stream over more problems of the same source begins like one
    over fewer, and a run can be extended. Later epochs are ordered by a hash of seed, epoch and problem id. The parts
    of a mixture are interleaved by weight, and each part has its own epochs.

    Args:
        problems: The problems in the source's order, which depends on the seed.
        seed: The run's seed.
        weights: Weight of each part of a mixture; not needed for data without parts.

    Raises:
        DataError: There are no problems.
    """

    def __init__(self, problems: list[Problem], seed: int, weights: Mapping[str, float] | None = None) -> None:
        if not problems:
            raise DataError("there are no training problems. Check data.path and the percentages of the splits")
        self._seed = seed
        self._weights = weights or {"": 1.0}
        self._parts = {
            name: _Part(name, [problem for problem in problems if problem.part == name], seed) for name in self._weights
        }
        self._index, self._drawn = 0, digest("stream", seed)

    def state(self) -> PromptState:
        """Return the position of the stream."""
        return PromptState(index=self._index, data=f"{self._drawn:016x}")

    def restore(self, state: PromptState) -> None:
        """Continue from a saved state. The stream must not have yielded any problem yet.

        Raises:
            DataError: With these problems, weights and seed, the problems so far would have been different.
        """
        self.next(state.index)
        if self.state() != state:
            raise DataError(
                f"the training data has changed: the first {state.index} problems differ from those before the "
                "checkpoint. Resume with the same data configuration, seed and rows"
            )

    def next(self, count: int) -> list[Problem]:
        """Return the next `count` problems, which may cross the end of an epoch.

        Raises:
            DataError: A part of the mixture has no training problems.
        """
        problems = []
        for index in range(self._index, self._index + count):
            problem = self._parts[part_at(self._seed, index, self._weights)].next()
            self._drawn = digest(self._drawn, problem.part, problem.id)
            problems.append(problem)
        self._index += count
        return problems


class _Part:
    """Yields one part's problems, epoch after epoch."""

    def __init__(self, name: str, problems: list[Problem], seed: int) -> None:
        self._name, self._problems, self._seed = name, problems, seed
        self._epoch, self._order = 0, problems
        self._taken = 0

    def next(self) -> Problem:
        if not self._problems:
            raise DataError(
                f"data.parts.{self._name} has no training problems. Add rows to it, or remove it from data.parts"
            )
        epoch, position = divmod(self._taken, len(self._problems))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = sorted(self._problems, key=lambda p: digest("epoch", self._seed, epoch, p.id))
        self._taken += 1
        return self._order[position]
