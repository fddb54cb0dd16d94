"""Keyed sums: sums over the bits of a tensor's elements, each multiplied by a key of its position, for digests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlsync.kernels import ops

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""2^64 / golden ratio, as a signed 64-bit integer."""
_PIECE = 1 << 24
"""Number of elements whose keys, of eight bytes each, are held at a time."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangular part of a matrix."""

    values: torch.Tensor
    """[r, c], bf16 or fp32, contiguous."""
    dtype: torch.dtype
    """Dtype to which the values are rounded before their bits are taken."""
    row: int
    """Row of the whole matrix at which the part begins."""
    column: int
    """Column of the whole matrix at which the part begins."""
    columns: int
    """Number of columns of the whole matrix."""


def keyed_sums(rectangles: Sequence[Rectangle]) -> torch.Tensor:
    """The keyed sum of each of n rectangles, modulo 2^64: [n] int64 on their common device."""
    if rectangles[0].values.is_cuda:
        return ops.gpu_backend(rectangles[0].values).keyed_sums(rectangles)
    return torch.stack([_keyed_sum(rectangle) for rectangle in rectangles])


def _keyed_sum(rectangle: Rectangle) -> torch.Tensor:
    values = rectangle.values.to(rectangle.dtype)
    bits = values.view(torch.int16 if values.dtype == torch.bfloat16 else torch.int32)
    rows = max(1, _PIECE // max(1, bits.shape[1]))
    total = torch.zeros((), dtype=torch.int64)
    for begin in range(0, len(bits), rows):
        total += _sum(bits[begin : begin + rows], rectangle.row + begin, rectangle.column, rectangle.columns)
    return total


def _sum(bits: torch.Tensor, row: int, column: int, columns: int) -> torch.Tensor:
    index = (torch.arange(row, row + bits.shape[0]) * columns)[:, None]
    index = index + torch.arange(column, column + bits.shape[1])
    key = index * GOLDEN
    key = (key ^ (key >> 29)) | 1
    return (bits.to(torch.int64) * key).sum()
