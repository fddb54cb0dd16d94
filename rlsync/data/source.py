"""The protocol of a source of problems."""

from __future__ import annotations

from typing import Protocol

from rlsync.config.data import DataConfig
from rlsync.data.problem import Problem, Split


class ProblemSource(Protocol):
    """Gives problems, and scores completions of them."""

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """Return distinct problems of the split, the same ones for the same configuration, split and seed.

        A smaller count gives the beginning of the list, or of each part's list. A finite source with fewer problems
        returns all of them.

        Raises:
            DataError: The source has no problems, or cannot generate as many.
        """
        ...

    def held_out_ids(self) -> set[str]:
        """Return the ids of the held-out problems of a finite source."""
        ...

    def score(self, problem: Problem, completion: str) -> float:
        """Score a completion with the source's own scorer."""
        ...

    def scored_confined(self) -> dict[str, DataConfig]:
        """Return the configurations of the parts whose scorers must run in a confined process, by the part's name.

        Such a scorer may run the model's text as code, or may not terminate. A source without parts has the name "".
        """
        ...
