"""Rotary positions of queries and keys in one launch. Each product and sum is rounded, as in Hugging Face's models."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.triton.tiles import power_of_two


@triton.jit
def _rotate(
    x, out, cos, sin, t, heads, stride_t, stride_h, at, HALF: tl.constexpr, HEADS: tl.constexpr
):  # fmt: skip
    """Rotate all heads of token t. x [T, heads, 2 HALF] has strides; out is dense."""
    head = tl.arange(0, HEADS)[:, None]
    mask = (head < heads) & (at < HALF)
    row = x + t * stride_t + head * stride_h + at
    to = out + (t * heads + head) * 2 * HALF + at
    kind = x.dtype.element_ty
    x1 = tl.load(row, mask=mask).to(tl.float32)
    x2 = tl.load(row + HALF, mask=mask).to(tl.float32)
    first = (x1 * cos).to(kind).to(tl.float32) - (x2 * sin).to(kind).to(tl.float32)
    second = (x2 * cos).to(kind).to(tl.float32) + (x1 * sin).to(kind).to(tl.float32)
    tl.store(to, first.to(kind), mask=mask)
    tl.store(to + HALF, second.to(kind), mask=mask)


@triton.jit
def _rope_kernel(
    q, k, table, positions, q_out, k_out, heads, kv_heads, stride_qt, stride_qh, stride_kt, stride_kh,
    HALF: tl.constexpr, BLOCK: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
):  # fmt: skip
    """Rotate the queries or the keys of a token.

    q [T, heads, 2 HALF]; k [T, kv_heads, 2 HALF]; table [P, 2 HALF]: cosines, then sines.
    """
    t = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)[None, :]
    angles = table + tl.load(positions + t) * 2 * HALF + at
    cos = tl.load(angles, mask=at < HALF).to(tl.float32)
    sin = tl.load(angles + HALF, mask=at < HALF).to(tl.float32)
    if tl.program_id(1) == 0:
        _rotate(q, q_out, cos, sin, t, heads, stride_qt, stride_qh, at, HALF, HEADS)
    else:
        _rotate(k, k_out, cos, sin, t, kv_heads, stride_kt, stride_kh, at, HALF, KV_HEADS)


def rope(
    q: torch.Tensor, k: torch.Tensor, table: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate q [T, Hq, D] and k [T, Hkv, D] by the rows `positions` [T] of a rope table [P, D]; returns copies."""
    q, k = (t if t.stride(2) == 1 else t.contiguous() for t in (q, k))
    outs = tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k))
    half, heads, kv_heads = q.shape[2] // 2, q.shape[1], k.shape[1]
    _rope_kernel[(q.shape[0], 2)](
        q, k, table, positions, *outs, heads, kv_heads, *q.stride()[:2], *k.stride()[:2],
        HALF=half, BLOCK=power_of_two(half), HEADS=power_of_two(heads),
        KV_HEADS=power_of_two(kv_heads), num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return outs
