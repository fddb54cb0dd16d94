"""Causal attention with grouped KV heads and an optional sliding window.

One inner routine handles one query row at a time, in training on packs and trees, in chunked prefill and in paged
decode. All sums are in fp32: scores over d in order, the softmax sum in lanes by the logical position of the key, and
P V over keys in order. A row's bits therefore do not depend on pages, chunks, the place of its keys in memory, or other
rows. Keys outside the window are skipped and add nothing.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from rlsync.kernels.cpu.arrays import fp32_array
from rlsync.kernels.cpu.scalar import LANES, exp32, fold_lanes, log64
from rlsync.kernels.key_paths import KeyPaths


@numba.njit(nogil=True)
def _attend_row(q, keys_t, values, position, scale, window, p, lanes, out):
    """Attention of one query row. Writes out [D] and returns the log-sum-exp of the scores.

    q [D]; keys_t [D, L]; values [L, D]; p [L rounded up to LANES] and lanes [LANES] are scratch memory.
    """
    dim = q.shape[0]
    hi = position + 1
    lo = max(0, hi - window) if window > 0 else 0
    first = lo - lo % LANES
    last = hi + (-hi) % LANES
    p[lo:hi] = 0
    for d in range(0, dim, 4):  # head_dim is a multiple of 4
        q0, q1, q2, q3 = q[d], q[d + 1], q[d + 2], q[d + 3]
        k0, k1, k2, k3 = keys_t[d], keys_t[d + 1], keys_t[d + 2], keys_t[d + 3]
        for j in range(lo, hi):
            p[j] = (((p[j] + q0 * k0[j]) + q1 * k1[j]) + q2 * k2[j]) + q3 * k3[j]
    highest = -np.float32(np.inf)
    for j in range(lo, hi):
        p[j] = p[j] * scale
        if p[j] > highest or p[j] != p[j]:
            highest = p[j]
    for j in range(lo, hi):
        p[j] = exp32(p[j] - highest)
    p[first:lo] = 0
    p[hi:last] = 0
    lanes[:] = 0
    for j in range(first, last, LANES):
        for i in range(LANES):
            lanes[i] += p[j + i]
    total = fold_lanes(lanes)
    out[:] = 0
    j = lo
    while j + 4 <= hi:
        p0, p1, p2, p3 = p[j], p[j + 1], p[j + 2], p[j + 3]
        v0, v1, v2, v3 = values[j], values[j + 1], values[j + 2], values[j + 3]
        for d in range(dim):
            out[d] = (((out[d] + p0 * v0[d]) + p1 * v1[d]) + p2 * v2[d]) + p3 * v3[d]
        j += 4
    while j < hi:
        for d in range(dim):
            out[d] += p[j] * values[j, d]
        j += 1
    for d in range(dim):
        out[d] = out[d] / total
    return highest + np.float32(log64(np.float64(total)))


@numba.njit(cache=True, nogil=True)
def _tree_kernel(q, k, v, starts, table, lengths, scale, window, out, lse):
    # q, out [T, Hq, D]; k, v [T, Hkv, D]; starts [G + 1]; table [G, P]; lengths [G]; lse [T, Hq]
    heads, kv_heads, dim = q.shape[1], k.shape[1], q.shape[2]
    group = heads // kv_heads
    lanes = np.empty(LANES, np.float32)
    for s in range(lengths.shape[0]):
        begin, count, length = starts[s], starts[s + 1] - starts[s], lengths[s]
        oldest = max(0, length - count + 1 - window) if window > 0 else 0
        keys_t = np.empty((dim, length), np.float32)
        values = np.empty((length, dim), np.float32)
        p = np.empty(length + LANES, np.float32)
        for g in range(kv_heads):
            for j in range(oldest, length):
                row = table[s, j]
                for d in range(dim):
                    keys_t[d, j] = k[row, g, d]
                    values[j, d] = v[row, g, d]
            for t in range(count):
                for h in range(g * group, (g + 1) * group):
                    lse[begin + t, h] = _attend_row(
                        q[begin + t, h], keys_t, values, length - count + t, scale, window, p, lanes,
                        out[begin + t, h],
                    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _paged_kernel(q, cache, shift, table, starts, lengths, scale, window, out):
    # q, out [T, Hq, D]; cache [blocks, Hkv, block, 2D] bits; table [S, pages]; starts [S + 1]; lengths [S]
    heads, dim = q.shape[1], q.shape[2]
    kv_heads, block = cache.shape[1], cache.shape[2]
    group = heads // kv_heads
    lanes = np.empty(LANES, np.float32)
    for s in range(lengths.shape[0]):
        begin, count, length = starts[s], starts[s + 1] - starts[s], lengths[s]
        if count <= 0:
            continue
        oldest = max(0, length - count + 1 - window) if window > 0 else 0  # earlier pages may be freed
        keys_t = np.empty((dim, length), np.float32)
        values = np.empty((length, dim), np.float32)
        p = np.empty(length + LANES, np.float32)
        for g in range(kv_heads):
            for j in range(oldest, length):
                row = cache[table[s, j // block], g, j % block]
                for d in range(dim):
                    keys_t[d, j] = np.uint32(np.uint32(row[d]) << shift).view(np.float32)
                    values[j, d] = np.uint32(np.uint32(row[dim + d]) << shift).view(np.float32)
            for t in range(count):
                for h in range(g * group, (g + 1) * group):
                    _attend_row(
                        q[begin + t, h], keys_t, values, length - count + t, scale, window, p, lanes,
                        out[begin + t, h],
                    )  # fmt: skip


def packed_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, scale: float, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over sequences laid end to end.

    Args:
        q: [T, Hq, D]; k, v: [T, Hkv, D], fp32 or bf16.
        starts: [S + 1] integer offsets of the sequences, from 0 to T.
        scale: factor of the scores.
        window: number of keys that a query sees, itself included (q - k < window); 0 for all.

    Returns:
        The output [T, Hq, D] in q's dtype, and the log-sum-exp of each row's scores [T, Hq] fp32.
    """
    return tree_attention(q, k, v, starts, end_to_end(starts), scale, window)


def tree_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    paths: KeyPaths,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over a prefix tree.

    Args:
        q, k, v, scale, window: as in packed_attention.
        starts: [G + 1] integer offsets of the segments, from 0 to T.
        paths: the keys of each segment; the last ones are those of the segment's own queries.

    Returns:
        As in packed_attention.
    """
    out = torch.empty(q.shape, dtype=torch.float32)
    lse = torch.empty(q.shape[:2], dtype=torch.float32)
    _tree_kernel(
        fp32_array(q), fp32_array(k), fp32_array(v), starts.to(torch.int64).numpy(), paths.table.numpy(),
        paths.lengths.numpy(), np.float32(scale), window, out.numpy(), lse.numpy(),
    )  # fmt: skip
    return out.to(q.dtype), lse


def end_to_end(starts: torch.Tensor) -> KeyPaths:
    """The paths of sequences that lie end to end: each sequence attends to its own rows."""
    starts = starts.to(torch.int64)
    lengths = starts.diff()
    table = (starts[:-1, None] + torch.arange(int(lengths.max()))).clamp_max(int(starts[-1]) - 1)
    return KeyPaths(table=table.to(torch.int32), lengths=lengths, chunks=[])


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
    """Attention of new tokens over a paged cache that already holds their keys and values.

    Args:
        q: [T, Hq, D]; rows starts[s] : starts[s + 1] are the last tokens of sequence s.
        cache: [blocks, Hkv, block, 2D]; the last dim holds the key and then the value.
        table: [S, pages] int32, the blocks of each sequence.
        starts: [S + 1] integer offsets of the sequences' rows.
        lengths: [S], number of tokens of each sequence in the cache, including the new ones.
        scale, window: as in packed_attention.
        out: receives the result if it is given; its last dim is dense.

    Returns:
        [T, Hq, D] in q's dtype.
    """
    bits, shift = (torch.uint16, 16) if cache.dtype == torch.bfloat16 else (torch.uint32, 0)
    wide = torch.empty(q.shape, dtype=torch.float32)
    _paged_kernel(
        fp32_array(q), cache.view(bits).numpy(), np.uint32(shift), table.numpy(), starts.to(torch.int64).numpy(),
        lengths.to(torch.int64).numpy(), np.float32(scale), window, wide.numpy(),
    )  # fmt: skip
    return wide.to(q.dtype) if out is None else out.copy_(wide)


def decode_attention(
    q: torch.Tensor,
    cache: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
    window: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`paged_attention` with one new token, row s of q [S, Hq, D], for each sequence s."""
    return paged_attention(q, cache, table, torch.arange(q.shape[0] + 1), lengths, scale, window, out)


def write_cache(k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
    """Write k, v [T, Hkv, D] into cache [blocks, Hkv, page, 2D] at slots [T] = block * page + offset."""
    page = cache.shape[2]
    cache[slots // page, :, slots % page] = torch.cat((k, v), dim=-1)
