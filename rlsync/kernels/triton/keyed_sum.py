"""The keyed sums of tensors' bits (../keyed_sum.py), all in one launch: integers, so the order is free."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from rlsync.kernels.keyed_sum import GOLDEN, Rectangle

_GOLDEN = tl.constexpr(GOLDEN)
_TILE = 4096
"""Elements of a program."""
_FIELDS = tl.constexpr(7)


@triton.jit(do_not_specialize=["count", "rounds"])
def _keyed_sums_kernel(table, out, count, rounds, DTYPE: tl.constexpr, TILE: tl.constexpr):
    """Adds the sum of a tile to out [count].

    table [count, 7]: a rectangle's first program, its output, address, elements, width, offset and columns of the
    whole; `offset` is the place of its first element in the whole, row by row.
    """
    low, high = 0, count
    for _ in range(rounds):  # the last rectangle whose first program is not a later one
        middle = (low + high) // 2
        before = tl.load(table + middle * _FIELDS) <= tl.program_id(0)
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    entry = table + low * _FIELDS
    bits = tl.load(entry + 2).to(tl.pointer_type(DTYPE))
    width = tl.load(entry + 4)
    first = (tl.program_id(0) - tl.load(entry)) * TILE
    row = first // width
    across = (first - row * width).to(tl.int32) + tl.arange(0, TILE)
    down = across // width.to(tl.int32)
    at = first + tl.arange(0, TILE)
    value = tl.load(bits + at, mask=at < tl.load(entry + 3), other=0).to(tl.int64)
    place = tl.load(entry + 5) + (row + down) * tl.load(entry + 6) + across - down * width
    key = place * _GOLDEN
    key = (key ^ (key >> 29)) | 1
    tl.atomic_add(out + tl.load(entry + 1), tl.sum(value * key, 0), sem="relaxed")


def keyed_sums(rectangles: Sequence[Rectangle]) -> torch.Tensor:
    """As in ../keyed_sum.py; a launch for each dtype."""
    device = rectangles[0].bits.device
    out = torch.zeros(len(rectangles), dtype=torch.int64, device=device)
    for dtype, element in ((torch.int16, tl.int16), (torch.int32, tl.int32)):
        table = []
        programs = 0
        for index, rectangle in enumerate(rectangles):
            bits, columns = rectangle.bits, rectangle.columns
            if bits.dtype == dtype and bits.numel():
                offset = rectangle.row * columns + rectangle.column
                table.append((programs, index, bits.data_ptr(), bits.numel(), bits.shape[1], offset, columns))
                programs += triton.cdiv(bits.numel(), _TILE)
        if table:
            entries = torch.tensor(table, dtype=torch.int64, device=device)
            count = len(table)
            _keyed_sums_kernel[(programs,)](entries, out, count, count.bit_length(), DTYPE=element, TILE=_TILE)
    return out
