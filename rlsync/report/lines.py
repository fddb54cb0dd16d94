"""Reads a file of JSON lines that a run may still be writing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_REMEMBERED = 200
"""Number of bytes before the place that was reached, by which a file that was rewritten is recognised."""


@dataclass(slots=True, frozen=True)
class Line:
    """A complete line of a file."""

    begin: int
    """Position of its first byte."""
    data: bytes

    def parsed(self) -> dict[str, Any] | None:
        """Return the object of the line; None if it has none, as a corrupt line."""
        return parse(self.data)


class LineReader:
    """Returns the lines that were added since the last call. A line without an end waits for the next call.

    Args:
        path: The file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restarts = 0
        """How often the file was found cut off or rewritten, as by a run that was resumed."""
        self.unfinished = False
        """Whether the file ends with a line that has no end yet."""
        self._place, self._before = 0, b""

    def read(self) -> Iterator[Line]:
        """Yield the new lines. If `restarts` grows with the first one, earlier lines no longer hold.

        Raises:
            OSError: The file cannot be read.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            self._restart()
            return
        with file:
            file.seek(self._place - len(self._before))
            if file.read(len(self._before)) != self._before:
                self._restart()
                file.seek(0)
            self.unfinished = False
            for data in file:
                if not data.endswith(b"\n"):
                    self.unfinished = True
                    return
                begin, self._place = self._place, self._place + len(data)
                self._before = (self._before + data)[-_REMEMBERED:]
                yield Line(begin, data)

    def _restart(self) -> None:
        if self._place:
            self.restarts += 1
        self._place, self._before = 0, b""


def parse(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `data`; None if there is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
