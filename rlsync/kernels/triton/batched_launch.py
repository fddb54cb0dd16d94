"""One launch over many pieces of memory: a table has an entry for each, and a program takes a span of one of them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

TILE, SPAN = 4096, 1 << 15
"""Elements at a time, and of a program."""
FIELDS = tl.constexpr(7)
"""int64 numbers of an entry; the first is its first program."""
TYPES = {torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@triton.jit
def entry_of(table, count, rounds):
    """Where this program's entry begins in table [count, 7]: the last whose first program is not a later one."""
    low, high = 0, count
    for _ in range(rounds):
        middle = (low + high) // 2
        before = tl.load(table + middle * FIELDS) <= tl.program_id(0)
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return table + low * FIELDS
