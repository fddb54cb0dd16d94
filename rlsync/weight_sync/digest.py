"""Digests of tensors that can be computed on parts: a position-keyed sum over the bits, modulo 2^64.

The digest of a whole tensor is the sum of the digests of its disjoint parts, because every element is keyed by its
position in the whole tensor. FSDP shards can therefore be compared with TP shards without gathering either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from rlsync.kernels.keyed_sum import Rectangle, keyed_sums


@dataclass(slots=True, kw_only=True)
class TensorDigest:
    """The digest of a rectangular part of a canonical tensor."""

    name: str
    """Hugging Face name of the tensor."""
    rows: tuple[int, int]
    """First row of the part, and the one after its last."""
    columns: tuple[int, int]
    """First column of the part, and the one after its last."""
    value: int
    """Position-keyed sum modulo 2^64. The digests of disjoint parts add up to the digest of the whole tensor."""


_MODULUS = 1 << 64


@dataclass(slots=True, kw_only=True)
class Part:
    """A rectangular part of a canonical tensor, with its values."""

    name: str
    """Hugging Face name of the tensor."""
    values: torch.Tensor
    """[r, c], or [r] for a vector; bf16 or fp32."""
    row: int
    """Row of the whole tensor at which the part begins."""
    column: int = 0
    """Column of the whole tensor at which the part begins."""
    columns: int
    """Number of columns of the whole tensor; 1 for a vector."""


def whole_rows(name: str, values: torch.Tensor, row: int = 0) -> Part:
    """Return a part that consists of whole rows of a tensor.

    Args:
        name: name of the tensor.
        values: [r, c], or [r] for a vector.
        row: row of the tensor that `values[0]` is.
    """
    return Part(name=name, values=values, row=row, columns=1 if values.ndim == 1 else values.shape[1])


class Digester:
    """Computes the digests of parts, and keeps them on the device until `digests` reads all of them at once."""

    def __init__(self) -> None:
        self._places: list[tuple[str, tuple[int, int], tuple[int, int]]] = []
        self._sums: list[torch.Tensor] = []

    def add(self, parts: Sequence[Part], dtype: torch.dtype | None = None) -> None:
        """Digest the current values of parts that lie on one device, rounded to `dtype` if it is given."""
        if not parts:
            return
        rectangles = [_rectangle(part, dtype) for part in parts]
        self._sums.append(keyed_sums(rectangles))
        for part, r in zip(parts, rectangles, strict=True):
            rows, columns = (r.row, r.row + r.values.shape[0]), (r.column, r.column + r.values.shape[1])
            self._places.append((part.name, rows, columns))

    def digests(self) -> list[TensorDigest]:
        """The digests of all added parts, in order."""
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
    """Add up the digests of parts to digests of whole tensors, by name.

    A part that several workers report (a replica) counts once. If their values differ, the tensor's digest is None.
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
    """Sorted names of the tensors whose digests differ or are None, or that only one side has."""
    return sorted(
        n for n in trainer.keys() | rollout.keys() if trainer.get(n) is None or trainer.get(n) != rollout.get(n)
    )
