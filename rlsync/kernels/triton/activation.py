"""The gated activation: SiLU as x / (1 + exp(-x)), rounded, times up, rounded."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.triton.tiles import ceil_div

_BLOCK = 1024


@triton.jit
def _silu_and_mul_kernel(gate, up, out, n, stride_gate, stride_up, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(gate + row * stride_gate + at, mask=at < n, other=0.0)
    wide = x.to(tl.float32)
    silu = tl.div_rn(wide, 1.0 + tl.exp(-wide)).to(x.dtype)
    tl.store(out + row * n + at, silu * tl.load(up + row * stride_up + at, mask=at < n, other=0.0), mask=at < n)


def silu_and_mul(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """SiLU of `gate` [..., N] times `up` [..., N], which may be the two halves of one tensor."""
    n = gate.shape[-1]
    gates, ups = (t if t.stride(1) == 1 else t.contiguous() for t in (gate.reshape(-1, n), up.reshape(-1, n)))
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    _silu_and_mul_kernel[(gates.shape[0], ceil_div(n, _BLOCK))](
        gates, ups, out, n, gates.stride(0), ups.stride(0), BLOCK=_BLOCK, enable_fp_fusion=False
    )
    return out
