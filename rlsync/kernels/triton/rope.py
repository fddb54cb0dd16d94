"""Rotary positions of queries and keys in one launch; each product and sum rounded, as Hugging Face's torch ops do."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _rope_kernel(
    q, k, table, positions, q_out, k_out, heads, kv_heads, stride_qt, stride_qh, stride_kt, stride_kh,
    HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A head of a token: q [T, heads, 2 HALF], k [T, kv_heads, 2 HALF]; table [P, 2 HALF] holds cos, then sin."""
    t, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, BLOCK)
    mask = at < HALF
    angles = table + tl.load(positions + t) * 2 * HALF
    cos = tl.load(angles + at, mask=mask).to(tl.float32)
    sin = tl.load(angles + HALF + at, mask=mask).to(tl.float32)
    if head < heads:
        row = q + t * stride_qt + head * stride_qh
        out = q_out + (t * heads + head) * 2 * HALF
    else:
        row = k + t * stride_kt + (head - heads) * stride_kh
        out = k_out + (t * kv_heads + head - heads) * 2 * HALF
    kind = q.dtype.element_ty
    x1 = tl.load(row + at, mask=mask).to(tl.float32)
    x2 = tl.load(row + HALF + at, mask=mask).to(tl.float32)
    first = (x1 * cos).to(kind).to(tl.float32) - (x2 * sin).to(kind).to(tl.float32)
    second = (x2 * cos).to(kind).to(tl.float32) + (x1 * sin).to(kind).to(tl.float32)
    tl.store(out + at, first.to(kind), mask=mask)
    tl.store(out + HALF + at, second.to(kind), mask=mask)


def rope(
    q: torch.Tensor, k: torch.Tensor, table: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [T, Hq, D], k [T, Hkv, D], table [P, D], positions [T] -> rotated copies of q and k."""
    q, k = (t if t.stride(2) == 1 else t.contiguous() for t in (q, k))
    outs = tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k))
    half = q.shape[2] // 2
    _rope_kernel[(q.shape[0], q.shape[1] + k.shape[1])](
        q, k, table, positions, *outs, q.shape[1], k.shape[1], *q.stride()[:2], *k.stride()[:2],
        HALF=half, BLOCK=triton.next_power_of_2(half), num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    return outs
