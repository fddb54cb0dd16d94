"""The endless stream of training problems."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.data.hashing import digest
from rlsync.errors import DataError
from rlsync.types import Problem


@dataclass(slots=True, kw_only=True, frozen=True)
class PromptState:
    """Where a stream stands; saved in checkpoints."""

    epoch: int = 0
    index: int = 0
    """Problems of this epoch handed out so far."""


class PromptStream:
    """Goes through the problems again and again, each epoch in an order of its own.

    The order is by a hash of seed, epoch and problem id: the same whatever order the problems came in.

    Raises:
        DataError: there are no problems.
    """

    def __init__(self, problems: list[Problem], seed: int) -> None:
        if not problems:
            raise DataError("there are no training problems to stream; check data.path and the split percentages")
        self._problems = problems
        self._seed = seed
        self.restore(PromptState())

    @property
    def state(self) -> PromptState:
        return PromptState(epoch=self._epoch, index=self._index)

    def restore(self, state: PromptState) -> None:
        """Go on from a saved state.

        Raises:
            DataError: the state was saved over more problems than there are now.
        """
        if state.epoch < 0 or not 0 <= state.index <= len(self._problems):
            raise DataError(
                f"the checkpoint's prompt stream is at problem {state.index} of epoch {state.epoch}, but the data has "
                f"{len(self._problems)} problems: it is not the data of that run. Resume with the same data config"
            )
        self._start_epoch(state.epoch)
        self._index = state.index

    def next(self, count: int) -> list[Problem]:
        """The next `count` problems; a batch may reach over the end of an epoch."""
        batch: list[Problem] = []
        while len(batch) < count:
            if self._index == len(self._order):
                self._start_epoch(self._epoch + 1)
            taken = self._order[self._index : self._index + count - len(batch)]
            self._index += len(taken)
            batch += taken
        return batch

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._index = 0
        self._order = sorted(self._problems, key=lambda problem: digest("epoch", self._seed, epoch, problem.id))
