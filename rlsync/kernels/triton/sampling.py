"""Stateless sampling: Gumbel-max with murmur3 of (seed, position, token), as in rlsync.kernels.cpu.sampling.

The noise is fp32 here and fp64 there: the same stream, but a near tie may fall the other way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

TILE = 2048


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
def stream(seed, position):
    """The hash state of a row's noise; `gumbel` adds the token to it."""
    seed = seed.to(tl.uint64)
    h = _mix((seed * 0).to(tl.uint32), (seed & 0xFFFFFFFF).to(tl.uint32))
    h = _mix(h, ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32))
    return _mix(h, (position.to(tl.uint64) & 0xFFFFFFFF).to(tl.uint32))


@triton.jit
def gumbel_of_bits(bits):
    """-log(-log(u)) in fp32 of u = (bits + 0.5) 2^-32; bits uint32."""
    # A u near 1 would round to 1, and -log(u) to 0. So the upper half of the range keeps f = 1 - u, whose bits are the
    # complement, and takes -log(1 - f) as -log(w) plus what rounding 1 - f to w lost; f - (1 - w) is exact.
    upper = bits >= 0x80000000
    f = (tl.where(upper, bits ^ 0xFFFFFFFF, bits).to(tl.uint32).to(tl.float32) + 0.5) * 2.3283064365386963e-10  # 2^-32
    w = tl.where(upper, 1.0 - f, f)
    lost = tl.where(upper, f - (1.0 - w), 0.0)
    return -tl.log(lost - tl.log(w))


@triton.jit
def gumbel(state, tokens):
    """Noise of each of `tokens`, fp32."""
    return gumbel_of_bits(_finish(_mix(state + tl.zeros_like(tokens).to(tl.uint32), tokens.to(tl.uint32))))


@triton.jit
def keep_best(best, winner, score, tokens):
    """Lane by lane the best score so far and its token; a tie stays with the earlier, lower one."""
    better = score > best
    return tl.where(better, score, best), tl.where(better, tokens, winner)


@triton.jit
def lowest_winner(best, winner, size):
    """The token of the best lane; a tie goes to the lower token id."""
    return tl.min(tl.where(best == tl.max(best, 0), winner, size), 0).to(tl.int64)


@triton.jit
def _draw_kernel(logprobs, seeds, positions, out, size, TILE: tl.constexpr):
    t = tl.program_id(0)
    row = logprobs + t.to(tl.int64) * size
    state = stream(tl.load(seeds + t), tl.load(positions + t))
    best = tl.full([TILE], float("-inf"), tl.float32)
    winner = tl.zeros([TILE], tl.int32)
    for start in range(0, size, TILE):
        tokens = start + tl.arange(0, TILE)
        score = tl.load(row + tokens, mask=tokens < size, other=float("-inf")) + gumbel(state, tokens)
        best, winner = keep_best(best, winner, score, tokens)
    tl.store(out + t, lowest_winner(best, winner, size))


def draw(logprobs: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Draw one token per row: logprobs [T, V] fp32, seeds and positions [T] int64 -> [T] int64."""
    logprobs = logprobs.contiguous()
    out = torch.empty(logprobs.shape[0], dtype=torch.int64, device=logprobs.device)
    _draw_kernel[(logprobs.shape[0],)](
        logprobs, seeds, positions, out, logprobs.shape[1], TILE=TILE, num_warps=8, enable_fp_fusion=False
    )
    return out
