"""Stateless sampling: Gumbel-max with murmur3 of (seed, position, token), as in rlsync.kernels.cpu.sampling."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_TILE = 2048


@triton.jit
def _rotl(value, SHIFT: tl.constexpr):
    return (value << SHIFT) | (value >> (32 - SHIFT))


@triton.jit
def _mix(h, key):
    key = key * 0xCC9E2D51
    key = _rotl(key.to(tl.uint32), 15)
    key = (key * 0x1B873593).to(tl.uint32)
    h = _rotl((h ^ key).to(tl.uint32), 13)
    return (h * 5 + 0xE6546B64).to(tl.uint32)


@triton.jit
def _finish(h):
    h = h ^ 16
    h = ((h ^ (h >> 16)) * 0x85EBCA6B).to(tl.uint32)
    h = ((h ^ (h >> 13)) * 0xC2B2AE35).to(tl.uint32)
    return h ^ (h >> 16)


@triton.jit
def _draw_kernel(logprobs, seeds, positions, out, size, TILE: tl.constexpr):
    t = tl.program_id(0)
    seed = tl.load(seeds + t).to(tl.uint64)
    position = tl.load(positions + t).to(tl.uint64)
    h = _mix((seed * 0).to(tl.uint32), (seed & 0xFFFFFFFF).to(tl.uint32))
    h = _mix(h, ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32))
    h = _mix(h, (position & 0xFFFFFFFF).to(tl.uint32))
    best = tl.full([], float("-inf"), tl.float64)
    winner = tl.full([], 0, tl.int32)
    for start in range(0, size, TILE):
        tokens = start + tl.arange(0, TILE)
        bits = _finish(_mix(h + tl.zeros([TILE], tl.uint32), tokens.to(tl.uint32)))
        u = (bits.to(tl.float64) + 0.5) * 2.3283064365386963e-10  # 2^-32
        row = logprobs + t.to(tl.int64) * size
        score = tl.load(row + tokens, mask=tokens < size, other=float("-inf")).to(tl.float64) - tl.log(-tl.log(u))
        top = tl.max(score, 0)
        first = tl.min(tl.where(score == top, tokens, size), 0)  # a tie goes to the lower token id
        winner = tl.where(top > best, first, winner)
        best = tl.maximum(best, top)
    tl.store(out + t, winner.to(tl.int64))


def draw(logprobs: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Draw one token per row: logprobs [T, V] fp32, seeds and positions [T] int64 -> [T] int64."""
    logprobs = logprobs.contiguous()
    out = torch.empty(logprobs.shape[0], dtype=torch.int64, device=logprobs.device)
    _draw_kernel[(logprobs.shape[0],)](
        logprobs, seeds, positions, out, logprobs.shape[1], TILE=_TILE, enable_fp_fusion=False
    )
    return out
