"""Chooses which rollouts of a run a page holds, and how much of their texts, within a number of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from rlsync.report.chunks import Budget, encode
from rlsync.report.records import Records, Rows
from rlsync.report.rollout_index import RolloutIndex, by_priority
from rlsync.report.rollout_line import RolloutLine
from rlsync.report.tokens import Pieces

_ROWS_SHARE = 0.4
"""Share of the bytes that short forms may take; whole forms take what is left."""
_TEXT_LIMITS = (2000, 1000, 500, 250, 120, 60)
"""Characters of a text in the short form: the first that fits."""
_ROWS_IN_CHUNK, _CHUNK_BYTES = 2000, 400_000
"""Rollouts in a chunk of short forms, and bytes of JSON in a chunk of whole forms."""
_PLACE = 6
"""Characters of a chunk that the place of one whole form takes at most."""
_PROBED = 500
"""Number of short forms from which the size of all is estimated."""


@dataclass(slots=True, kw_only=True)
class Packed:
    """Chunks of a run's rollouts."""

    total: int = 0
    listed: int = 0
    detailed: int = 0
    text_limit: int = 0
    rows: list[str] = field(default_factory=list)
    places: str = ""
    """For each chunk of whole forms the numbers of its rollouts among the listed ones."""
    details: list[str] = field(default_factory=list)


def pack_rollouts(index: RolloutIndex, pieces: Pieces | None, *, size: int, most: int) -> Packed:
    """Return the chunks of a run's rollouts.

    Args:
        index: The rollouts.
        pieces: Texts of tokens; None without a tokenizer.
        size: Largest number of characters of all chunks.
        most: Largest number of listed rollouts.
    """
    packed, order = Packed(total=len(index.entries)), by_priority(index.entries)[:most]
    if not order:
        return packed
    order = _pack_rows(index, order, packed, int(size * _ROWS_SHARE))
    budget = Budget(size - sum(map(len, packed.rows)) - _PLACE * len(order) - 100)
    places = _pack_details(index, order, packed, pieces, budget)
    packed.places = encode(places)
    packed.detailed = sum(map(len, places))
    return packed


def _pack_rows(index: RolloutIndex, order: list[int], packed: Packed, size: int) -> list[int]:
    """Pack the short forms, with shorter texts and then fewer rollouts until they fit; return the listed ones."""
    limits = iter([*_fitting(index, order, size), *[_TEXT_LIMITS[-1]] * 64])
    last = False
    for limit in limits:
        if last:
            order = order[: len(order) // 2]
        last = limit == _TEXT_LIMITS[-1]
        chunks = _row_chunks(index, sorted(order), limit, Budget(size))
        if chunks is not None:
            packed.rows, packed.listed, packed.text_limit = chunks, len(order), limit
            return order
    return []


def _fitting(index: RolloutIndex, order: list[int], size: int) -> list[int]:
    """Return the limits whose estimated size fits, from the longest."""
    probe = sorted(order)[:: max(1, len(order) // _PROBED)]
    tried = {limit: Rows() for limit in _TEXT_LIMITS}
    for line in index.read_short(probe):
        for limit, rows in tried.items():
            rows.add(line, limit)
    sizes = {limit: len(encode(rows)) * len(order) / len(probe) for limit, rows in tried.items()}
    return [limit for limit in _TEXT_LIMITS if sizes[limit] <= size] or [_TEXT_LIMITS[-1]]


def _row_chunks(index: RolloutIndex, numbers: list[int], limit: int, budget: Budget) -> list[str] | None:
    """Return the chunks of short forms, or None if they do not fit."""
    lines, chunks = index.read_short(numbers), list[str]()
    while True:
        rows = Rows()
        for line in islice(lines, _ROWS_IN_CHUNK):
            rows.add(line, limit)
        if not rows.step:
            return chunks
        chunks.append(encode(rows))
        if not budget.take(chunks[-1]):
            return None


def _pack_details(
    index: RolloutIndex, order: list[int], packed: Packed, pieces: Pieces | None, budget: Budget
) -> list[list[int]]:
    """Pack whole forms in the order of their priority until the budget is used, and return the rows of each chunk."""
    row_of = {number: row for row, number in enumerate(sorted(order))}
    places: list[list[int]] = []
    for part in _batches((row_of[number], line) for number, line in index.read(order)):
        while part:
            chunk = encode(_records(part, pieces))
            if budget.take(chunk):
                packed.details.append(chunk)
                places.append([row for row, _ in part])
                break
            part = part[: len(part) // 2]
        else:
            break
        if budget.left < _CHUNK_BYTES // 100:
            break
    return places


def _batches(lines: Iterator[tuple[int, RolloutLine]]) -> Iterator[list[tuple[int, RolloutLine]]]:
    """Yield rollouts in groups of about the size of a chunk."""
    part, size = [], 0
    for row, line in lines:
        part.append((row, line))
        size += 16 * len(line.tokens) + len(line.prompt) + 2 * len(line.response) + 200
        if size > _CHUNK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _records(part: list[tuple[int, RolloutLine]], pieces: Pieces | None) -> Records:
    records, numbers = Records(), dict[tuple[int, str | None], int]()
    for row, line in part:
        records.add(row, line, pieces, numbers)
    return records
