"""Problems of several sources, interleaved by weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from rlsync.config.data import DataConfig
from rlsync.data.hashing import digest
from rlsync.data.problem import Problem, Split
from rlsync.data.source import ProblemSource
from rlsync.errors import error_context

_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 / golden ratio. Its multiples modulo 2^64 are spread evenly, so every range of indices has the right shares."""


def part_at(seed: int, index: int, weights: Mapping[str, float]) -> str:
    """Return the name of the part that the problem at `index` comes from. It depends only on the arguments.

    Of n consecutive indices, each part gets approximately n times its share.

    Args:
        seed: The run's seed.
        index: Index in the mixture's stream.
        weights: Weight of each part.
    """
    names = sorted(weights)
    point = (digest("mixture", seed) + index * _GOLDEN) % 2**64 >> 11  # 53 bits: exact as a float
    rest = point / 2**53 * sum(weights[name] for name in names)
    for name in names[:-1]:
        if rest < weights[name]:
            return name
        rest -= weights[name]
    return names[-1]


class MixtureSource:
    """Problems of all parts. Each problem has the name of its part, whose scorer scores it."""

    def __init__(self, parts: Mapping[str, ProblemSource], config: DataConfig) -> None:
        self._parts = parts
        self._weights = config.weights
        # A prompt may be in two parts, of which one has a table of held-out problems, which no hash can identify.
        self._held_out: set[str] = set().union(*(part.held_out_ids() for part in parts.values()))

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """Return `count` problems of the split, interleaved by weight; fewer if a part has too few.

        Raises:
            DataError: A part has no problems of the split.
        """
        turns = [part_at(seed, index, self._weights) for index in range(count)]
        drawn = {name: iter(self._draw(name, split, wanted, seed)) for name, wanted in Counter(turns).items()}
        found: dict[str, Problem] = {}
        for name in turns:
            problem = next(drawn[name], None)
            if problem is not None:
                found.setdefault(problem.id, problem)
        return list(found.values())

    def held_out_ids(self) -> set[str]:
        """Return the ids of the held-out problems of all finite parts."""
        return self._held_out

    def scored_confined(self) -> dict[str, DataConfig]:
        """Return the configurations of the parts whose scorers must run in a confined process, by the part's name."""
        return {name: config for name, part in self._parts.items() for config in part.scored_confined().values()}

    def score(self, problem: Problem, completion: str) -> float:
        """Score a completion with the scorer of the problem's part."""
        return self._parts[problem.part].score(problem, completion)

    def _draw(self, name: str, split: Split, count: int, seed: int) -> list[Problem]:
        with error_context(f"data.parts.{name}"):
            problems = self._parts[name].problems(split, count, seed)
        return [
            replace(problem, part=name)
            for problem in problems
            if split is Split.held_out or problem.id not in self._held_out
        ]
