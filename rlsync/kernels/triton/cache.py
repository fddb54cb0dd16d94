"""Writes new keys and values into the pages of a cache."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.triton.tiles import power_of_two


@triton.jit
def _write_kernel(
    k, v, cache, slots, page, stride_kt, stride_kh, stride_vt, stride_vh, stride_cb, stride_ch, stride_cs,
    D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    t, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(slots + t).to(tl.int64)
    if slot < 0:  # padding of a CUDA graph
        return
    at = tl.arange(0, BLOCK)
    mask = at < D
    to = cache + slot // page * stride_cb + head * stride_ch + slot % page * stride_cs
    tl.store(to + at, tl.load(k + t * stride_kt + head * stride_kh + at, mask=mask), mask=mask)
    tl.store(to + D + at, tl.load(v + t * stride_vt + head * stride_vh + at, mask=mask), mask=mask)


def write_cache(k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
    """Write k, v [T, Hkv, D] into cache [blocks, Hkv, page, 2D].

    slots [T] are block * page + offset; a token with slot -1 is not written.
    """
    k, v = (t if t.stride(2) == 1 else t.contiguous() for t in (k, v))
    tokens, heads, dim = k.shape
    _write_kernel[(tokens, heads)](
        k, v, cache, slots, cache.shape[2], *k.stride()[:2], *v.stride()[:2], *cache.stride()[:3],
        D=dim, BLOCK=power_of_two(dim), num_warps=1,
    )  # fmt: skip
