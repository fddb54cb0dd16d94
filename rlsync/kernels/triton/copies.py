"""Many copies between parts of matrices in one launch (../copies.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import triton
import triton.language as tl

from rlsync.kernels.triton.batched_launch import SPAN, TILE, TYPES, entry_of
from rlsync.kernels.triton.tiles import ceil_div

_VECTOR = 8
"""Number of elements that are copied together if addresses and strides allow it."""


@triton.jit(do_not_specialize=["count", "rounds"])
def _copy_kernel(
    table, count, rounds, INTO: tl.constexpr, FROM: tl.constexpr, VECTOR: tl.constexpr, TILE: tl.constexpr,
    SPAN: tl.constexpr,
):  # fmt: skip
    """Copy a span of one entry.

    table [count, 7] has for each copy its first program, both addresses, its number of vectors, and its width and both
    row strides in vectors.
    """
    entry = entry_of(table, count, rounds)
    into = tl.multiple_of(tl.load(entry + 1).to(tl.pointer_type(INTO)), 2 * VECTOR)
    values = tl.multiple_of(tl.load(entry + 2).to(tl.pointer_type(FROM)), 2 * VECTOR)
    size, width = tl.load(entry + 3), tl.load(entry + 4).to(tl.int32)
    into_stride, values_stride = tl.load(entry + 5), tl.load(entry + 6)
    begin = ((tl.program_id(0) - tl.load(entry)) * (SPAN // VECTOR)).to(tl.int32)
    lane = tl.arange(0, VECTOR)[None, :]
    for first in range(begin, tl.minimum(begin + SPAN // VECTOR, size).to(tl.int32), TILE // VECTOR):
        at = first + tl.arange(0, TILE // VECTOR)
        there = (at < size)[:, None]
        row, column = (at // width).to(tl.int64), at % width
        source = (row * values_stride + column)[:, None] * VECTOR + lane
        target = (row * into_stride + column)[:, None] * VECTOR + lane
        tl.store(into + target, tl.load(values + source, mask=there).to(INTO), mask=there)


def copy_launches(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Callable[[], object]]:
    """Prepare the launches: one for each pair of dtypes, and a separate one for copies that are not aligned."""
    device = pairs[0][0].device
    tables: dict[tuple[torch.dtype, torch.dtype, int], list[tuple[int, ...]]] = {}
    programs: dict[tuple[torch.dtype, torch.dtype, int], int] = {}
    for into, values in pairs:
        if not into.numel():
            continue
        vector = _VECTOR if _aligned(into) and _aligned(values) else 1
        key = (into.dtype, values.dtype, vector)
        strides = (t.stride(0) // vector if t.ndim == 2 else 0 for t in (into, values))
        size, width = into.numel() // vector, into.shape[-1] // vector
        first = programs.get(key, 0)
        entry = (first, into.data_ptr(), values.data_ptr(), size, width, *strides)
        tables.setdefault(key, []).append(entry)
        programs[key] = first + ceil_div(into.numel(), SPAN)
    launches: list[Callable[[], object]] = []
    for key, entries in tables.items():
        target, source, vector = key
        launches.append(
            partial(
                _copy_kernel[(programs[key],)], torch.tensor(entries, dtype=torch.int64, device=device), len(entries),
                len(entries).bit_length(), INTO=TYPES[target], FROM=TYPES[source], VECTOR=vector, TILE=TILE,
                SPAN=SPAN,
            )
        )  # fmt: skip
    return launches


def _aligned(t: torch.Tensor) -> bool:
    rows = t.ndim == 1 or t.shape[0] == 1 or t.stride(0) % _VECTOR == 0
    return rows and t.shape[-1] % _VECTOR == 0 and t.data_ptr() % (2 * _VECTOR) == 0
