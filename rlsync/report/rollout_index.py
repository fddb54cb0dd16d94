"""Where each rollout lies in rollouts.jsonl, so that texts need not be kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rlsync.errors import ConfigError
from rlsync.report.lines import LineReader
from rlsync.report.metric_table import Value
from rlsync.report.rollout_line import RolloutLine, rollout_line, short_line


@dataclass(slots=True, frozen=True)
class Entry:
    """A rollout's place in the file, and what decides whether it is shown."""

    begin: int
    size: int
    step: int
    reward: Value
    length: int


class RolloutIndex:
    """Reads rollouts.jsonl, also while it grows.

    Args:
        path: The file, which is missing if the run does not save its rollouts.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, LineReader(path)
        self.entries: list[Entry] = []
        self.unreadable = 0
        """Number of lines that hold no rollout."""

    def update(self) -> None:
        """Read what was added."""
        restarts = self.lines.restarts
        for line in self.lines.read():
            if self.lines.restarts != restarts:
                restarts = self.lines.restarts
                self._forget()
            found = short_line(line.data)
            if found is None:
                self.unreadable += 1
            else:
                self.entries.append(Entry(line.begin, len(line.data), found.step, found.reward, found.length))
        if self.lines.restarts != restarts:
            self._forget()

    def read_short(self, numbers: Iterable[int]) -> Iterator[RolloutLine]:
        """Yield the line of each chosen entry, without token ids and log-probs.

        Raises:
            ConfigError: The file is not as it was when the entries were found.
        """
        for _, data in self._lines(numbers):
            found = short_line(data)
            if found is None:
                raise ConfigError(f"{self.path} was changed while it was read. Run the command again")
            yield found

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, RolloutLine]]:
        """Yield the number and the line of each chosen entry that can be read."""
        for number, data in self._lines(numbers):
            found = rollout_line(data)
            if found is not None:
                yield number, found

    def _lines(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as file:
            for number in numbers:
                entry = self.entries[number]
                file.seek(entry.begin)
                yield number, file.read(entry.size)

    def _forget(self) -> None:
        self.entries, self.unreadable = [], 0


def by_priority(entries: list[Entry]) -> list[int]:
    """Return the numbers of all entries, the most telling first.

    First the best of each step, then the worst, the first and the longest of each, then the others in turn. Steps are
    taken in an order in which every beginning is spread evenly over the run.
    """
    steps: dict[int, list[int]] = {}
    for number, entry in enumerate(entries):
        steps.setdefault(entry.step, []).append(number)
    orders = [_step_order(entries, steps[step]) for step in _spread(sorted(steps))]
    longest = max(map(len, orders), default=0)
    return [order[level] for level in range(longest) for order in orders if level < len(order)]


def _step_order(entries: list[Entry], numbers: list[int]) -> list[int]:
    scored = [(reward, -number) for number in numbers if (reward := entries[number].reward) is not None]
    chosen = [-max(scored)[1], -min(scored, key=lambda each: (each[0], -each[1]))[1]] if scored else []
    chosen += [numbers[0], max(numbers, key=lambda number: entries[number].length)]
    return list(dict.fromkeys([*chosen, *numbers]))


def _spread(steps: list[int]) -> list[int]:
    """Reorder steps by the reversed bits of their index: last and first, then the middle, then the quarters."""
    width = max(1, (len(steps) - 1).bit_length())
    order = sorted(range(len(steps)), key=lambda index: int(f"{index:0{width}b}"[::-1], 2))
    return [steps[-1], *(steps[index] for index in order if index != len(steps) - 1)] if steps else []
