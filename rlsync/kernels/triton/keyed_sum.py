"""The keyed sum of a tensor's bits (../keyed_sum.py): integers, so the order is free."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.keyed_sum import GOLDEN

_GOLDEN = tl.constexpr(GOLDEN)
_TILE = 4096
"""Elements of a program."""


@triton.jit(do_not_specialize=["row", "column", "columns", "rows"])
def _keyed_sum_kernel(bits, out, rows, width, stride, row, column, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Adds the sum of a tile of bits [rows, width] to out."""
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    c = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    value = tl.load(bits + r * stride + c, mask=(r < rows) & (c < width), other=0).to(tl.int64)
    key = ((row + r) * columns + column + c) * _GOLDEN
    key = (key ^ (key >> 29)) | 1
    total = tl.sum(tl.reshape(value * key, [ROWS * COLUMNS]), 0)
    tl.atomic_add(out, total, sem="relaxed")


def keyed_sum(bits: torch.Tensor, row: int, column: int, columns: int) -> torch.Tensor:
    """Arguments and result as in ../keyed_sum.py; the rows of `bits` are contiguous."""
    rows, width = bits.shape
    out = torch.zeros((), dtype=torch.int64, device=bits.device)
    if not bits.numel():
        return out
    across = min(triton.next_power_of_2(width), _TILE)
    down = _TILE // across
    grid = (triton.cdiv(rows, down), triton.cdiv(width, across))
    _keyed_sum_kernel[grid](
        bits, out, rows, width, bits.stride(0), row, column, columns, ROWS=down, COLUMNS=across, num_warps=4
    )
    return out
