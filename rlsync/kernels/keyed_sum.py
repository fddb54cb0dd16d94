"""A sum of a tensor's bits, each times a key of its place: what weight_sync/digest.py adds up."""

from __future__ import annotations

import torch

from rlsync.kernels import ops

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""2^64 / golden ratio, as a signed 64-bit integer."""
_PIECE = 1 << 24
"""Elements at a time: their keys take eight bytes each."""


def keyed_sum(bits: torch.Tensor, row: int, column: int, columns: int) -> torch.Tensor:
    """Sum of the bits [r, c] (int16 or int32), each times the key of its place, modulo 2^64: [] int64 on their device.

    Args:
        row, column: where the first one lies in the whole.
        columns: of the whole.
    """
    if bits.is_cuda:
        return ops.backend(bits).keyed_sum(bits, row, column, columns)
    rows = max(1, _PIECE // max(1, bits.shape[1]))
    total = torch.zeros((), dtype=torch.int64)
    for begin in range(0, len(bits), rows):
        total += _sum(bits[begin : begin + rows], row + begin, column, columns)
    return total


def _sum(bits: torch.Tensor, row: int, column: int, columns: int) -> torch.Tensor:
    index = (torch.arange(row, row + bits.shape[0], device=bits.device) * columns)[:, None]
    index = index + torch.arange(column, column + bits.shape[1], device=bits.device)
    key = index * GOLDEN
    key = (key ^ (key >> 29)) | 1
    return (bits.to(torch.int64) * key).sum()
