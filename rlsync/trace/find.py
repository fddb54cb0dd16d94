"""Finds the first op whose bits differ between an engine's workers and the trainer, and how the difference grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from rlsync.kernels.ulp import ulp_distance
from rlsync.trace.records import Op, OpRecord, op_name


@dataclass(slots=True, kw_only=True, frozen=True)
class Place:
    """The first difference: all ops before it agree on every recorded token, so its inputs are equal."""

    layer: int
    op: Op
    position: int
    """Position of the first token whose row differs."""
    ranks: list[int]
    """The TP ranks whose rows differ there."""

    @property
    def name(self) -> str:
        """The op's name, such as `layers.3.o_proj`."""
        return op_name(self.layer, self.op)


@dataclass(slots=True, kw_only=True, frozen=True)
class Growth:
    """The difference at one op."""

    layer: int
    op: Op
    tokens_different: int
    """Number of tokens whose rows differ on some rank."""
    tokens: int
    """Number of tokens that both sides have."""
    max_ulp: int | None = None
    """Largest difference of the first differing token's values in units in the last place; None without its rows."""
    max_abs_diff: float | None = None
    """Largest absolute difference of the first differing token's values; None without its rows."""
    relative_diff: float | None = None
    """Norm of the difference of the first differing token's rows over the norm of the trainer's; None without them."""

    @property
    def name(self) -> str:
        """The op's name, such as `layers.3.o_proj`."""
        return op_name(self.layer, self.op)


@dataclass(slots=True, kw_only=True, frozen=True)
class Value:
    """One value of the first row that differs."""

    column: int
    """Column of the value within the rank's part of the row."""
    trainer: float
    engine: float
    ulp: int
    """Their distance in units in the last place of the op's dtype."""
    differing: int
    """Number of values of the row that differ."""
    columns: int
    """Number of values of the row."""


def first_difference(trainer: list[OpRecord], ranks: list[list[OpRecord]]) -> Place | None:
    """Return the first op, in the order of computation, for which some rank's digests differ from the trainer's.

    Args:
        trainer: The trainer's records, with a part for every shard.
        ranks: The records of each TP rank.
    """
    for (layer, op), pairs in _pairs(trainer, ranks).items():
        found = [(position, pair.rank) for pair in pairs for position in different_positions(pair.mine, pair.theirs)]
        if found:
            position = min(found)[0]
            return Place(layer=layer, op=op, position=position, ranks=sorted(r for p, r in found if p == position))
    return None


def growth(trainer: list[OpRecord], ranks: list[list[OpRecord]]) -> list[Growth]:
    """Return the difference at every op that both sides have recorded, in the order of computation."""
    found = []
    for (layer, op), pairs in _pairs(trainer, ranks).items():
        different = {position for pair in pairs for position in different_positions(pair.mine, pair.theirs)}
        tokens = {position for pair in pairs for position in pair.theirs.positions.tolist()}
        rows = [rows for pair in pairs if (rows := _rows(pair.mine, pair.theirs)) is not None]
        found.append(
            Growth(
                layer=layer,
                op=op,
                tokens_different=len(different),
                tokens=len(tokens),
                max_ulp=max((int(ulp_distance(a, b).max()) for a, b in rows), default=None),
                max_abs_diff=max((float((a.double() - b.double()).abs().max()) for a, b in rows), default=None),
                relative_diff=max((_relative(a.double(), b.double()) for a, b in rows), default=None),
            )
        )
    return found


def value_at(place: Place, trainer: list[OpRecord], rank: list[OpRecord]) -> Value | None:
    """Return the first value of the row at `place` that differs; None if a side has not kept its row.

    Args:
        place: The first difference.
        trainer: The trainer's records, of which those at `place` have a row.
        rank: The records of one of the ranks that differ.
    """
    mine_by_key = {record.key: record for record in trainer}
    for theirs in (record for record in rank if record.key[:2] == (place.layer, place.op)):
        mine = mine_by_key.get(theirs.key)
        if mine is None or theirs.row_position != place.position or (rows := _rows(mine, theirs)) is None:
            continue
        distance = ulp_distance(*rows)
        if distance.any():
            column = int(distance.nonzero()[0])
            return Value(
                column=column,
                trainer=float(rows[0][column]),
                engine=float(rows[1][column]),
                ulp=int(distance[column]),
                differing=int((distance > 0).sum()),
                columns=distance.numel(),
            )
    return None


def different_positions(one: OpRecord, other: OpRecord) -> list[int]:
    """Return the positions of the tokens that both records have, and whose rows differ."""
    known = dict(zip(one.positions.tolist(), one.digests.tolist(), strict=True))
    pairs = zip(other.positions.tolist(), other.digests.tolist(), strict=True)
    return [position for position, digest in pairs if known.get(position, digest) != digest]


class _Pair(NamedTuple):
    """The records of one op and one shard on both sides."""

    rank: int
    mine: OpRecord
    theirs: OpRecord


def _pairs(trainer: list[OpRecord], ranks: list[list[OpRecord]]) -> dict[tuple[int, Op], list[_Pair]]:
    """Return the pairs of each op that both sides have recorded; the ops are in the order of computation."""
    mine = {record.key: record for record in trainer}
    found: dict[tuple[int, Op], list[_Pair]] = {}
    for rank, records in enumerate(ranks):
        for record in records:
            if record.key in mine:
                found.setdefault(record.key[:2], []).append(_Pair(rank, mine[record.key], record))
    return dict(sorted(found.items()))


def _rows(mine: OpRecord, theirs: OpRecord) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return both sides' rows of the same token; None if a side has not kept it."""
    if mine.row is None or theirs.row is None or mine.row_position != theirs.row_position:
        return None
    return mine.row, theirs.row


def _relative(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((mine - theirs).norm() / mine.norm())
