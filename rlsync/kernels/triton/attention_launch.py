"""Launches the attention kernels."""

from __future__ import annotations

import functools
import math

import torch
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from rlsync.kernels.key_paths import KeyPaths
from rlsync.kernels.triton.attention import decode_merge, decode_split, prefill
from rlsync.kernels.triton.attention_hopper import prefill_packed, prefill_paged
from rlsync.kernels.triton.tiles import ceil_div, multiprocessors, power_of_two, rows_suit_tma, shared_memory
from rlsync.kernels.triton.tma import descriptor

TILE = 64
"""Number of keys of a step of the online softmax."""
SPLIT = 1024
"""Number of keys of a split; in decode each split has a program of its own."""
_ROWS = (64, 32, 16)
"""Numbers of queries of a program of `prefill`; the largest for which there is enough shared memory is used."""
_WARPS, _STAGES = 4, 2
"""Warps of a program of `prefill`, and tiles of keys that it keeps in flight, including the one that it multiplies."""
_HOPPER_SLOTS = 8
"""Tiles of keys or values that the Hopper kernels keep in flight."""
_HOPPER_PAGES = (16, 32)
"""Page sizes with which `prefill_paged` has been tested."""
_NO_WINDOW = 1 << 30
"""A window that hides nothing."""


def packed_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, scale: float, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over sequences that lie end to end; arguments and results are as in cpu/attention.py."""
    if all(_suits_tma(t) for t in (q, k, v)):
        return _prefill_hopper(q, k, v, starts.to(torch.int32), scale, window)
    k, v = (t if t.stride(2) == 1 else t.contiguous() for t in (k, v))
    strides = (0, k.stride(0), k.stride(1), 0, v.stride(0), v.stride(1))
    return _prefill(q, k, v, starts.to(torch.int32), None, None, strides, 1, scale, window)


def paged_attention(
    q: torch.Tensor,
    cache: torch.Tensor,
    table: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
    window: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of new tokens over a paged cache; arguments are as in cpu/attention.py."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    lengths = lengths.to(torch.int32)
    if _suits_tma(q) and _suits_tma(out) and _pages_suit_tma(cache):
        return _prefill_pages_hopper(q, cache, table, starts.to(torch.int32), lengths, scale, window, out)
    k, v, strides = _halves(cache)
    return _prefill(q, k, v, starts.to(torch.int32), table, lengths, strides, cache.shape[2], scale, window, out)[0]


def tree_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    paths: KeyPaths,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over a prefix tree, computed as paged attention in which each row of the pack is a page of one token.

    Arguments and results are as in cpu/attention.py.
    """
    k, v = (t if t.stride(2) == 1 else t.contiguous() for t in (k, v))
    strides = (k.stride(0), 0, k.stride(1), v.stride(0), 0, v.stride(1))
    lengths = paths.lengths.to(torch.int32)
    return _prefill(q, k, v, starts.to(torch.int32), paths.table, lengths, strides, 1, scale, window)


def _prefill(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    table: torch.Tensor | None,
    lengths: torch.Tensor | None,
    strides: tuple[int, ...],
    page: int,
    scale: float,
    window: int,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads, dim = q.shape
    q = q if q.stride(2) == 1 else q.contiguous()
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    lse = torch.empty(tokens, heads, dtype=torch.float32, device=q.device)
    sequences = starts.shape[0] - 1
    paged = table is not None
    rows = _prefill_rows(dim, q.itemsize, shared_memory(q.device))
    prefill[(heads, tokens // rows + sequences)](
        q, k, v, out, lse, table if paged else starts, starts, lengths if paged else starts, sequences,
        sequences.bit_length(), heads // k.shape[1], scale * math.log2(math.e), window or _NO_WINDOW, page,
        table.shape[1] if paged else 0, heads, q.stride(0), q.stride(1), *strides, out.stride(0), out.stride(1),
        D=dim, TILE=TILE, SPLIT=SPLIT, BM=rows, PAGED=paged, num_warps=_WARPS, num_stages=_STAGES,
        enable_fp_fusion=False,
    )  # fmt: skip
    return out, lse


@functools.cache
def _prefill_rows(dim: int, itemsize: int, shared: int) -> int:
    """Queries of a program for which shared memory suffices: queries, a tile of keys and values, and weights."""
    fit = (rows for rows in _ROWS if (rows * (dim + TILE) + 2 * TILE * dim) * itemsize + 4 * rows <= shared)
    return next(fit, _ROWS[-1])


def _prefill_hopper(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, scale: float, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    grid, sizes, options = _hopper_launch(q, starts)
    prefill_packed[grid](
        _by_head(q), _by_head(k), _by_head(v), out, lse, starts, *sizes, q.shape[1] // k.shape[1],
        scale * math.log2(math.e), window or _NO_WINDOW, out.stride(0), **options,
    )  # fmt: skip
    return out, lse


def _prefill_pages_hopper(
    q: torch.Tensor,
    cache: torch.Tensor,
    table: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
    window: int,
    out: torch.Tensor,
) -> torch.Tensor:
    _, kv_heads, page, wide = cache.shape
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    grid, sizes, options = _hopper_launch(q, starts)
    prefill_paged[grid](
        _by_head(q), descriptor(cache.view(-1, wide), page, 64), out, lse, table, starts, lengths, *sizes,
        q.shape[1] // kv_heads, scale * math.log2(math.e), window or _NO_WINDOW, page, table.stride(0), kv_heads,
        out.stride(0), D=wide // 2, **options,
    )  # fmt: skip
    return out


def _hopper_launch(q: torch.Tensor, starts: torch.Tensor) -> tuple[tuple[int], tuple[int, ...], dict[str, object]]:
    """The grid; the numbers of sequences, rounds of bisection over them, heads and blocks; and compile-time options."""
    tokens, heads, dim = q.shape
    groups = 3 if dim == 64 else 2
    sequences = starts.shape[0] - 1
    blocks = tokens // (64 * groups) + sequences
    options = {"GROUPS": groups, "SPLIT": SPLIT // TILE, "SLOTS": _HOPPER_SLOTS, "OVERLAP": True, "num_warps": 4,
               "enable_fp_fusion": False}  # fmt: skip
    grid = (min(multiprocessors(q.device.index), heads * blocks),)
    return grid, (sequences, sequences.bit_length(), heads, blocks), options


def _suits_tma(t: torch.Tensor) -> bool:
    """Whether the Hopper kernels can read t [T, H, D]: heads are side by side in a row and have a supported size."""
    side_by_side = t.stride(2) == 1 and t.stride(1) == t.shape[2]
    return rows_suit_tma(t) and side_by_side and t.shape[0] > 0 and t.shape[2] in (64, 128)


def _pages_suit_tma(cache: torch.Tensor) -> bool:
    """Whether the Hopper kernels can read a cache [blocks, Hkv, page, 2D]: it is dense and its page size was tested."""
    suits = cache.shape[2] in _HOPPER_PAGES and cache.is_contiguous()
    return suits and rows_suit_tma(cache.view(-1, cache.shape[3]))


def _by_head(t: torch.Tensor) -> TensorDescriptor:
    """The descriptor of t [T, H, D] as a matrix [T, H * D], with tiles of one head."""
    tokens, heads, dim = t.shape
    return descriptor(t.view(tokens, heads * dim), TILE, dim)


def decode_attention(
    q: torch.Tensor,
    cache: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
    window: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`paged_attention` with one new token, row s of q [S, Hq, D], for each sequence s; splits run in parallel."""
    sequences, heads, dim = q.shape
    q = q if q.stride(2) == 1 else q.contiguous()
    k, v, strides = _halves(cache)
    lengths = lengths.to(torch.int32)
    kv_heads, page = k.shape[1], k.shape[2]
    group = heads // kv_heads
    splits = ceil_div(table.shape[1] * page, SPLIT)
    parts = torch.empty(sequences, kv_heads, splits, group, dim, dtype=torch.float32, device=q.device)
    stats = torch.empty(sequences, kv_heads, splits, 2, group, dtype=torch.float32, device=q.device)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    rows = max(16, power_of_two(group))
    decode_split[(sequences, kv_heads, splits)](
        q, k, v, parts, stats, table, lengths, group, scale * math.log2(math.e), window or _NO_WINDOW, page,
        table.shape[1], splits, q.stride(0), q.stride(1), *strides,
        D=dim, TILE=TILE, SPLIT=SPLIT, BM=rows, num_warps=2, num_stages=2, enable_fp_fusion=False,
    )  # fmt: skip
    decode_merge[(sequences, heads)](
        parts, stats, out, lengths, group, window or _NO_WINDOW, splits, out.stride(0), out.stride(1),
        D=dim, SPLIT=SPLIT, num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def _halves(cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Keys and values of a cache [blocks, Hkv, page, 2D], and their strides by block, token and head."""
    dim = cache.shape[3] // 2
    return cache[..., :dim], cache[..., dim:], (cache.stride(0), cache.stride(2), cache.stride(1)) * 2
