"""RMSNorm, a program per row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_LARGEST_BLOCK = 2048
"""A longer row is summed in blocks of this size, in order: a function of the row's length alone."""


@triton.jit
def _rms_norm_kernel(x, w, out, rstd_out, n, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * n
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + row + at, mask=at < n, other=0.0).to(tl.float32)
        total += value * value
    mean = tl.sum(total, 0) / (n * 1.0)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(mean + eps))
    tl.store(rstd_out + tl.program_id(0), rstd)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + row + at, mask=at < n, other=0.0).to(tl.float32)
        weight = tl.load(w + at, mask=at < n, other=0.0)
        normed = (value * rstd).to(weight.dtype)
        tl.store(out + row + at, (normed * weight).to(out.dtype.element_ty), mask=at < n)


def rms_norm(x: torch.Tensor, w: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """round(round(x rstd) w): x [T, H] -> [T, H] and rstd [T, 1] fp32."""
    x = x.contiguous()
    out = torch.empty_like(x)
    rstd = torch.empty(x.shape[0], 1, dtype=torch.float32, device=x.device)
    block = min(triton.next_power_of_2(x.shape[1]), _LARGEST_BLOCK)
    _rms_norm_kernel[(x.shape[0],)](
        x, w, out, rstd, x.shape[1], eps, BLOCK=block, num_warps=max(1, block // 256), enable_fp_fusion=False
    )
    return out, rstd
