"""One launch for many pieces of memory: a table has an entry for each, and a program works on a span of one piece."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

TILE, SPAN = 4096, 1 << 15
"""Number of elements that a program handles at a time, and in all."""
FIELDS = tl.constexpr(7)
"""Number of int64 fields of an entry; the first is the entry's first program."""
TYPES = {torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@triton.jit
def entry_of(table, count, rounds):
    """A pointer to this program's entry in table [count, 7]: the last entry whose first program is not a later one."""
    low, high = 0, count
    for _ in range(rounds):
        middle = (low + high) // 2
        before = tl.load(table + middle * FIELDS) <= tl.program_id(0)
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return table + low * FIELDS
