"""What a source of problems is."""

from __future__ import annotations

from typing import Protocol

from rlsync.config.data import DataConfig
from rlsync.data.problem import Problem, Split


class ProblemSource(Protocol):
    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """Distinct problems of the split, the same for the same config, split and seed.

        A smaller count gives the beginning of the list, or of that of each part. A finite source returns all it has
        where `count` is more.

        Raises:
            DataError: the source has none, or cannot make as many.
        """
        ...

    def held_out_ids(self) -> set[str]:
        """Ids of the held-out problems of a finite source."""
        ...

    def score(self, problem: Problem, completion: str) -> float:
        """The source's own scorer."""
        ...

    def scored_confined(self) -> dict[str, DataConfig]:
        """The parts, by name, whose scorer may run the model's text as code or for ever; a lone source has the name
        "". Such a scorer is to be called in a confined process only."""
        ...
