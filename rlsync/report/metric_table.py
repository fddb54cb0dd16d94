"""Metrics of a run as columns, which a chart can draw."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from rlsync.report.lines import LineReader, parse

COMPARED, DIFFERENT, DIGEST = "parity/tokens_compared", "parity/tokens_different", "parity/weights_digest_equal"
_MOST_DIVERGED = 500
"""Largest number of diverged steps that stay in a table that is thinned."""
_DIGITS = 7
"""Significant digits of a value; an fp32 number has no more."""

Value = float | int | None


@dataclass(slots=True, kw_only=True)
class MetricTable:
    """Values of each metric at each step, None where a step has none."""

    steps: list[int] = field(default_factory=list)
    columns: dict[str, list[Value]] = field(default_factory=dict)

    def numbers(self, key: str) -> list[float]:
        """Return the values of a metric that are numbers."""
        return [value for value in self.columns.get(key, ()) if value is not None]

    def thinned(self, most: int) -> MetricTable:
        """Return a table of about `most` steps: evenly spaced ones, the last one, and those that diverged."""
        every = math.ceil(len(self.steps) / max(1, most))
        if every <= 1:
            return self
        kept = {*range(0, len(self.steps), every), len(self.steps) - 1, *self._diverged()[:_MOST_DIVERGED]}
        rows = sorted(kept)
        columns = {key: [values[row] for row in rows] for key, values in self.columns.items()}
        return MetricTable(steps=[self.steps[row] for row in rows], columns=columns)

    def _diverged(self) -> list[int]:
        different, digest = self.columns.get(DIFFERENT, []), self.columns.get(DIGEST, [])
        wrong = {row for row, value in enumerate(different) if value} | {r for r, v in enumerate(digest) if v == 0}
        return sorted(wrong)


class MetricReader:
    """Reads metrics.jsonl, also while it grows.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.lines = LineReader(path)
        self.unreadable = 0
        """Number of lines that hold no metrics of a step."""
        self._rows: dict[int, dict[str, Value]] = {}
        self._keys: dict[str, None] = {}

    def update(self) -> bool:
        """Read what was added, and return whether there was anything."""
        restarts, found = self.lines.restarts, False
        for line in self.lines.read():
            if self.lines.restarts != restarts:
                restarts = self.lines.restarts
                self._forget()
            self._add(line.data)
            found = True
        if self.lines.restarts != restarts:
            self._forget()
            return True
        return found

    @property
    def count(self) -> int:
        """Number of steps that were read."""
        return len(self._rows)

    def table(self) -> MetricTable:
        """Return all steps that were read, in order."""
        steps = sorted(self._rows)
        columns = {key: [self._rows[step].get(key) for step in steps] for key in self._keys}
        return MetricTable(steps=steps, columns=columns)

    def _add(self, data: bytes) -> None:
        row = parse(data)
        step = row.pop("step", None) if row else None
        if row is None or isinstance(step, bool) or not isinstance(step, int):
            self.unreadable += 1
            return
        self._rows[step] = {key: number(value) for key, value in row.items()}
        self._keys |= dict.fromkeys(row)

    def _forget(self) -> None:
        self._rows, self._keys, self.unreadable = {}, {}, 0


def number(value: object) -> Value:
    """Return a number with the digits that a report shows; None for anything else and for what is not finite."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if abs(value) < 2**53 else float(value) if abs(value) < 10**300 else None
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}") if value != int(value) else value
    return int(short) if short == int(short) and abs(short) < 2**53 else short
