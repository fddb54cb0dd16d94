"""What a page that is open while runs go on asks for."""

from __future__ import annotations

import threading

from rlsync.report.build import Contents, core_chunk, title
from rlsync.report.chunks import decode, dumps, encode
from rlsync.report.packing import Packed
from rlsync.report.page import Page, render
from rlsync.report.records import Records, Rows
from rlsync.report.run_reader import RunReader
from rlsync.report.tokens import Pieces
from rlsync.telemetry.json_text import to_json

_TEXT_LIMIT, _ROWS = 1000, 1000
"""Characters of a text in a short form, and rollouts in an answer."""


class LiveReport:
    """Reads run folders when a page asks. Its methods may be called by several threads.

    Args:
        readers: The runs.
    """

    def __init__(self, readers: list[RunReader]) -> None:
        self._readers, self._lock = readers, threading.Lock()
        self._pieces: dict[int, Pieces | None] = {}
        self.watched, self.end_seen = False, False
        """Whether a page has asked yet, and whether one knows that the runs are complete."""

    @property
    def complete(self) -> bool:
        """Whether all runs have completed their steps."""
        return all(reader.complete for reader in self._readers)

    def page(self) -> str:
        """Return the page, with what there is now."""
        with self._lock:
            self._update()
            self.watched = True
            return "".join(render(Page(title=title(self._readers), core=self._core(), live=True)))

    def news(self, seen: str) -> str | None:
        """Return the state of all runs as JSON; None if the page has seen it.

        Args:
            seen: The tag of the state that the page has; empty if it has none.
        """
        with self._lock:
            self._update()
            tag, complete = self._tag(), self.complete
            if tag == seen:
                return None
            core = decode(self._core()).decode()
            self.end_seen = self.end_seen or complete
            restarts = sum(reader.restarts for reader in self._readers)
            return f'{{"tag":{to_json(tag)},"restarts":{restarts},"complete":{to_json(complete)},"core":{core}}}'

    def rows(self, run: int, begin: int) -> str:
        """Return short forms of the rollouts of a run from number `begin`, as JSON."""
        with self._lock:
            index, rows = self._readers[run].rollouts, Rows()
            for line in index.read_short(range(begin, min(begin + _ROWS, len(index.entries)))):
                rows.add(line, _TEXT_LIMIT)
            return dumps(rows)

    def detail(self, run: int, number: int) -> str:
        """Return the whole form of a rollout, as JSON."""
        with self._lock:
            ((_, line),) = self._readers[run].rollouts.read([number])
            records = Records()
            records.add(number, line, self._pieces.get(run), {})
            return dumps(records)

    def _update(self) -> None:
        for number, reader in enumerate(self._readers):
            reader.update()
            if reader.rollouts.entries and number not in self._pieces:
                self._pieces[number] = reader.pieces()

    def _tag(self) -> str:
        states = [
            (each.restarts, each.metrics.count, len(each.rollouts.entries), each.complete, each.running)
            for each in self._readers
        ]
        return encode(states)

    def _core(self) -> str:
        contents = [
            Contents(
                Packed(total=count, listed=count, detailed=count, text_limit=_TEXT_LIMIT),
                self._pieces.get(number) is not None,
            )
            for number, count in enumerate(len(reader.rollouts.entries) for reader in self._readers)
        ]
        return core_chunk(self._readers, contents, live=True)
