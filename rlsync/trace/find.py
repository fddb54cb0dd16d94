"""Finds the first op whose bits differ between an engine's workers and the trainer, and how the difference grows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
    for layer, op in _ops(ranks):
        found = [
            (position, rank)
            for rank, records in enumerate(ranks)
            for position in _different(trainer, records, layer, op)
        ]
        if found:
            position = min(found)[0]
            return Place(layer=layer, op=op, position=position, ranks=sorted(r for p, r in found if p == position))
    return None


def growth(trainer: list[OpRecord], ranks: list[list[OpRecord]]) -> list[Growth]:
    """Return the difference at every op that both sides have recorded, in the order of computation."""
    found = []
    for layer, op in _ops(ranks):
        pairs = [pair for records in ranks for pair in _pairs(trainer, records, layer, op)]
        if not pairs:
            continue
        different = {position for records in ranks for position in _different(trainer, records, layer, op)}
        tokens = {position for _, engine in pairs for position in engine.positions.tolist()}
        rows = [rows for pair in pairs if (rows := _rows(*pair)) is not None]
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
    for mine, theirs in _pairs(trainer, rank, place.layer, place.op):
        if theirs.row_position != place.position or (rows := _rows(mine, theirs)) is None:
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


def ulp_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the distance of bf16 or fp32 values in units in the last place, int64; -0.0 and +0.0 are one apart."""
    return (_ordered(a) - _ordered(b)).abs()


def _ordered(x: torch.Tensor) -> torch.Tensor:
    """Map values to int64 so that order is kept and neighbouring numbers are one apart."""
    narrow = x.dtype == torch.bfloat16
    bits = x.view(torch.int16 if narrow else torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & (0x7FFF if narrow else 0x7FFFFFFF)) - 1, bits)


def _ops(ranks: list[list[OpRecord]]) -> list[tuple[int, Op]]:
    return sorted({(record.key.layer, record.key.op) for records in ranks for record in records})


def _pairs(trainer: list[OpRecord], rank: list[OpRecord], layer: int, op: Op) -> list[tuple[OpRecord, OpRecord]]:
    """Return the trainer's and the rank's records of the same op and the same shard."""
    mine = {record.key: record for record in trainer}
    return [(mine[r.key], r) for r in rank if r.key[:2] == (layer, op) and r.key in mine]


def _rows(mine: OpRecord, theirs: OpRecord) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return both sides' rows of the same token; None if a side has not kept it."""
    if mine.row is None or theirs.row is None or mine.row_position != theirs.row_position:
        return None
    return mine.row, theirs.row


def _relative(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((mine - theirs).norm() / mine.norm())


def _different(trainer: list[OpRecord], rank: list[OpRecord], layer: int, op: Op) -> list[int]:
    """Return the positions of the tokens whose rows differ."""
    found: list[int] = []
    for mine, theirs in _pairs(trainer, rank, layer, op):
        expected = dict(zip(mine.positions.tolist(), mine.digests.tolist(), strict=True))
        for position, digest in zip(theirs.positions.tolist(), theirs.digests.tolist(), strict=True):
            if position in expected and expected[position] != digest:
                found.append(position)
    return found
