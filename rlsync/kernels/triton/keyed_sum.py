"""Keyed sums (../keyed_sum.py) of many tensors in one launch. They are sums of integers, so their order is free."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from rlsync.kernels.keyed_sum import GOLDEN, Rectangle
from rlsync.kernels.triton.batched_launch import SPAN, TILE, TYPES, entry_of
from rlsync.kernels.triton.tiles import ceil_div

_GOLDEN = tl.constexpr(GOLDEN)
_KINDS = [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32), (torch.float32, torch.bfloat16)]
"""Pairs of the dtype of the values and the dtype to which they are rounded."""


@triton.jit(do_not_specialize=["count", "rounds"])
def _keyed_sums_kernel(
    table, out, count, rounds, DTYPE: tl.constexpr, ROUNDED: tl.constexpr, BITS: tl.constexpr, TILE: tl.constexpr,
    SPAN: tl.constexpr,
):  # fmt: skip
    """Add the keyed sum of a span to the rectangle's element of out.

    table [count, 7] has for each rectangle its first program, its index in out, its address, its number of elements,
    its width, its offset and the columns of the whole matrix. The offset is the index of its first element in the whole
    matrix, counted row by row.
    """
    entry = entry_of(table, count, rounds)
    address, size = tl.load(entry + 2), tl.load(entry + 3)
    width, offset, columns = tl.load(entry + 4), tl.load(entry + 5), tl.load(entry + 6)
    lane = tl.arange(0, TILE)
    begin = (tl.program_id(0) - tl.load(entry)) * SPAN
    total = tl.zeros([TILE], tl.int64)
    for first in range(begin, tl.minimum(begin + SPAN, size), TILE):
        if (address % 16 == 0) & (first + TILE <= size):  # the usual case, with wide loads
            values = tl.multiple_of(address.to(tl.pointer_type(DTYPE)), 16)
            value = tl.load(values + first + lane)
        else:  # the pointer is not known to be aligned
            values = address.to(tl.pointer_type(DTYPE))
            value = tl.load(values + first + lane, mask=first + lane < size, other=0.0)
        bits = value.to(ROUNDED).to(BITS, bitcast=True)
        key = (offset + first) * _GOLDEN + lane.to(tl.int64) * _GOLDEN
        if width < columns:  # a row of the whole matrix is longer, so each new row skips some indices
            row = first // width
            across = (first - row * width).to(tl.int32) + lane
            down = (across >= width).to(tl.int32)
            if width < TILE:  # the tile may span several rows, which takes a division for each element
                down = across // width.to(tl.int32)
            key += (row + down) * ((columns - width) * _GOLDEN)
        total += bits.to(tl.int64) * ((key ^ (key >> 29)) | 1)
    tl.atomic_add(out + tl.load(entry + 1), tl.sum(total, 0), sem="relaxed")


def keyed_sums(rectangles: Sequence[Rectangle]) -> torch.Tensor:
    """Keyed sums as in ../keyed_sum.py, with one launch for each pair of dtypes."""
    device = rectangles[0].values.device
    out = torch.zeros(len(rectangles), dtype=torch.int64, device=device)
    for dtype, rounded in _KINDS:
        table = []
        programs = 0
        for index, rectangle in enumerate(rectangles):
            values, columns = rectangle.values, rectangle.columns
            if (values.dtype, rectangle.dtype) == (dtype, rounded) and values.numel():
                offset = rectangle.row * columns + rectangle.column
                table.append((programs, index, values.data_ptr(), values.numel(), values.shape[1], offset, columns))
                programs += ceil_div(values.numel(), SPAN)
        if table:
            entries = torch.tensor(table, dtype=torch.int64, pin_memory=device.type == "cuda")
            entries = entries.to(device, non_blocking=True)
            count = len(table)
            _keyed_sums_kernel[(programs,)](
                entries, out, count, count.bit_length(), DTYPE=TYPES[dtype], ROUNDED=TYPES[rounded],
                BITS=tl.int16 if rounded == torch.bfloat16 else tl.int32, TILE=TILE, SPAN=SPAN,
            )  # fmt: skip
    return out
