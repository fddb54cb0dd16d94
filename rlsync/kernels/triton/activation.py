"""SiLU as x / (1 + exp(-x)), rounded, times up, rounded."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 1024


@triton.jit
def _silu_and_mul_kernel(gate, up, out, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(gate + at, mask=at < size, other=0.0)
    wide = x.to(tl.float32)
    silu = tl.div_rn(wide, 1.0 + tl.exp(-wide)).to(x.dtype)
    tl.store(out + at, silu * tl.load(up + at, mask=at < size, other=0.0), mask=at < size)


def silu_and_mul(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Any shape, elementwise."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    _silu_and_mul_kernel[(triton.cdiv(gate.numel(), _BLOCK),)](
        gate, up, out, gate.numel(), BLOCK=_BLOCK, enable_fp_fusion=False
    )
    return out
