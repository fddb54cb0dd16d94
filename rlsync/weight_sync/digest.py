"""Digests that add up: a position-keyed sum modulo 2^64 over the bits of a tensor.

The digest of a whole tensor is the sum of the digests of its disjoint parts, each keyed by its place in the
whole. So FSDP shards and TP shards are compared without gathering either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from rlsync.kernels.keyed_sum import Rectangle, keyed_sums


@dataclass(slots=True, kw_only=True)
class TensorDigest:
    """A digest of a rectangle of one canonical (Hugging Face named) tensor."""

    name: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    value: int
    """Position-keyed sum modulo 2^64: digests of disjoint parts add up to the whole's."""


_MODULUS = 1 << 64


@dataclass(slots=True, kw_only=True)
class Part:
    """A rectangle of a tensor."""

    name: str
    values: torch.Tensor
    """[r, c], or [r] of a vector; bf16 or fp32."""
    row: int
    """Where its first element lies in the whole."""
    column: int = 0
    columns: int
    """Of the whole; 1 for a vector."""


def whole_rows(name: str, values: torch.Tensor, row: int = 0) -> Part:
    """All columns of the rows from `row` on; values [r, c] or [r]."""
    return Part(name=name, values=values, row=row, columns=1 if values.ndim == 1 else values.shape[1])


class Digester:
    """Collects digests of parts. Their values stay on the device until all are read together."""

    def __init__(self) -> None:
        self._places: list[tuple[str, tuple[int, int], tuple[int, int]]] = []
        self._sums: list[torch.Tensor] = []

    def add(self, parts: Sequence[Part], dtype: torch.dtype | None = None) -> None:
        """Of the values that the parts have now, rounded to `dtype` if it is given; all on one device."""
        if not parts:
            return
        rectangles = [_rectangle(part, dtype) for part in parts]
        self._sums.append(keyed_sums(rectangles))
        for part, r in zip(parts, rectangles, strict=True):
            rows, columns = (r.row, r.row + r.values.shape[0]), (r.column, r.column + r.values.shape[1])
            self._places.append((part.name, rows, columns))

    def digests(self) -> list[TensorDigest]:
        """Of all parts, in order."""
        values = torch.cat(self._sums).tolist() if self._sums else []
        return [
            TensorDigest(name=name, rows=rows, columns=columns, value=value % _MODULUS)
            for (name, rows, columns), value in zip(self._places, values, strict=True)
        ]


def _rectangle(part: Part, dtype: torch.dtype | None) -> Rectangle:
    t = part.values.detach()
    t = t.reshape(t.shape[0], part.columns if t.ndim == 1 else t.shape[1]).contiguous()
    return Rectangle(t, t.dtype if dtype is None else dtype, part.row, part.column, part.columns)


def combine(parts: Iterable[TensorDigest]) -> dict[str, int | None]:
    """Digests of whole tensors, by name. A part that two workers report (a replica) counts once.

    The digest is None where two workers report different values of a part.
    """
    unique: dict[tuple[str, tuple[int, int], tuple[int, int]], int] = {}
    torn = set()
    for part in parts:
        if unique.setdefault((part.name, part.rows, part.columns), part.value) != part.value:
            torn.add(part.name)
    totals: dict[str, int | None] = dict.fromkeys(torn)
    for (name, _, _), value in unique.items():
        if name not in torn:
            totals[name] = ((totals.get(name) or 0) + value) % _MODULUS
    return totals


def differing(trainer: dict[str, int | None], rollout: dict[str, int | None]) -> list[str]:
    """Names whose digests differ or are None, or that only one side has."""
    return sorted(
        n for n in trainer.keys() | rollout.keys() if trainer.get(n) is None or trainer.get(n) != rollout.get(n)
    )
