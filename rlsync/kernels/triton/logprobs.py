"""Log-softmax with temperature over fixed vocabulary tiles: x = logits / T, then x - max - log(sum).

One kernel makes a row's statistics for everybody: the order of a sum within a tile follows the layout of registers,
which another kernel might have otherwise.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

TILE = 4096
"""Lanes of the sum: lane i adds the tokens i, i + TILE, ... in order."""


@triton.jit
def scaled(row, at, size, temperature):
    """logits / T of the tokens `at`, -inf beyond the row's end."""
    return tl.div_rn(tl.load(row + at, mask=at < size, other=float("-inf")), temperature)


@triton.jit
def log_prob(x, highest, log_sum):
    return (x - highest) - log_sum


@triton.jit
def _statistics_kernel(logits, stats, entropy, size, temperature, TILE: tl.constexpr):
    t = tl.program_id(0).to(tl.int64)
    row = logits + t * size
    highest = float("-inf")
    for start in range(0, size, TILE):
        x = scaled(row, start + tl.arange(0, TILE), size, temperature)
        highest = tl.maximum(highest, tl.max(x, 0))
    total = tl.zeros([TILE], tl.float32)
    weighted = tl.zeros([TILE], tl.float32)
    for start in range(0, size, TILE):
        below = scaled(row, start + tl.arange(0, TILE), size, temperature) - highest
        part = tl.exp(below)
        total += part
        weighted += tl.where(part > 0, part * below, 0.0)  # 0 * -inf counts as 0
    whole = tl.sum(total, 0)
    log_sum = tl.log(whole)
    tl.store(stats + 2 * t, highest)
    tl.store(stats + 2 * t + 1, log_sum)
    tl.store(entropy + t, log_sum - tl.sum(weighted, 0) / whole)


@triton.jit
def _logprobs_kernel(logits, stats, out, size, temperature, TILE: tl.constexpr):
    t = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    x = scaled(logits + t * size, at, size, temperature)
    value = log_prob(x, tl.load(stats + 2 * t), tl.load(stats + 2 * t + 1))
    tl.store(out + t * size + at, value, mask=at < size)


def row_statistics(logits: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each row of contiguous fp32 logits [T, V]: max and log of the sum of exp(x - max) [T, 2], and entropy [T]."""
    rows, size = logits.shape
    stats = torch.empty(rows, 2, dtype=torch.float32, device=logits.device)
    entropy = torch.empty(rows, dtype=torch.float32, device=logits.device)
    _statistics_kernel[(rows,)](
        logits, stats, entropy, size, float(temperature), TILE=TILE, num_warps=8, enable_fp_fusion=False
    )
    return stats, entropy


def logprobs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """[T, V] fp32 logits -> [T, V] fp32 log-probs of the policy at `temperature`."""
    logits = logits.contiguous()
    rows, size = logits.shape
    stats, _ = row_statistics(logits, temperature)
    out = torch.empty_like(logits)
    _logprobs_kernel[(rows, triton.cdiv(size, TILE))](
        logits, stats, out, size, float(temperature), TILE=TILE, num_warps=8, enable_fp_fusion=False
    )
    return out
