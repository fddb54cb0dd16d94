"""Log-softmax with temperature over fixed vocabulary tiles: x = logits / T, then x - max - log(sum)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_TILE = 4096


@triton.jit
def _logprobs_kernel(logits, out, size, temperature, TILE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * size
    highest = float("-inf")
    for start in range(0, size, TILE):
        at = start + tl.arange(0, TILE)
        x = tl.div_rn(tl.load(logits + row + at, mask=at < size, other=float("-inf")), temperature)
        highest = tl.maximum(highest, tl.max(x, 0))
    total = tl.zeros([TILE], tl.float32)
    for start in range(0, size, TILE):
        at = start + tl.arange(0, TILE)
        x = tl.div_rn(tl.load(logits + row + at, mask=at < size, other=float("-inf")), temperature)
        total += tl.exp(x - highest)
    log_sum = tl.log(tl.sum(total, 0))
    for start in range(0, size, TILE):
        at = start + tl.arange(0, TILE)
        x = tl.div_rn(tl.load(logits + row + at, mask=at < size, other=0.0), temperature)
        tl.store(out + row + at, (x - highest) - log_sum, mask=at < size)


def logprobs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """[T, V] fp32 logits -> [T, V] fp32 log-probs of the policy at `temperature`."""
    logits = logits.contiguous()
    out = torch.empty_like(logits)
    _logprobs_kernel[(logits.shape[0],)](
        logits, out, logits.shape[1], float(temperature), TILE=_TILE, num_warps=8, enable_fp_fusion=False
    )
    return out
