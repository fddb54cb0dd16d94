"""Stateless sampling: Gumbel-max with murmur3 of (seed, position, token), as in rlsync.kernels.cpu.sampling.

The noise comes from the same hash, but it is computed in fp32 here and in fp64 on the CPU, so a near tie may be decided
differently.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.triton.logprobs import log_prob, scaled
from rlsync.kernels.triton.tiles import ceil_div

TILE = 2048
"""Number of tokens that a program handles at a time."""
CHUNK = 16384
"""Number of tokens of a program; a row of a large vocabulary has several programs."""


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
    """The state of the hash of a row's noise after seed and position; `gumbel` adds the token."""
    seed = seed.to(tl.uint64)
    h = _mix((seed * 0).to(tl.uint32), (seed & 0xFFFFFFFF).to(tl.uint32))
    h = _mix(h, ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32))
    return _mix(h, (position.to(tl.uint64) & 0xFFFFFFFF).to(tl.uint32))


@triton.jit
def gumbel_of_bits(bits):
    """Gumbel noise -log(-log(u)) in fp32 for u = (bits + 0.5) 2^-32, with bits in uint32."""
    # A u near 1 would round to 1, and -log(u) to 0. The upper half of the range therefore uses f = 1 - u, whose bits
    # are the complement, and makes -log(1 - f) of -log(w) and the error of rounding 1 - f to w; f - (1 - w) is exact.
    upper = bits >= 0x80000000
    f = (tl.where(upper, bits ^ 0xFFFFFFFF, bits).to(tl.uint32).to(tl.float32) + 0.5) * 2.3283064365386963e-10  # 2^-32
    w = tl.where(upper, 1.0 - f, f)
    lost = tl.where(upper, f - (1.0 - w), 0.0)
    return -tl.log(lost - tl.log(w))


@triton.jit
def gumbel(state, tokens):
    """The fp32 noise of each of `tokens`."""
    return gumbel_of_bits(_finish(_mix(state + tl.zeros_like(tokens).to(tl.uint32), tokens.to(tl.uint32))))


@triton.jit
def _chunk_kernel(
    rows, stats, seeds, positions, best_out, winner_out, size, temperature,
    TILE: tl.constexpr, CHUNK: tl.constexpr, LOGITS: tl.constexpr,
):  # fmt: skip
    """The best score of a chunk of a row, and its token, from log-probs, or with LOGITS from logits and `stats`."""
    t, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = rows + t * size
    state = stream(tl.load(seeds + t), tl.load(positions + t))
    best = tl.full([TILE], float("-inf"), tl.float32)
    winner = tl.zeros([TILE], tl.int32)
    first = chunk * CHUNK
    for start in range(first, tl.minimum(first + CHUNK, size), TILE):
        tokens = start + tl.arange(0, TILE)
        if LOGITS:
            x = scaled(row, tokens, size, temperature)
            value = log_prob(x, tl.load(stats + 2 * t), tl.load(stats + 2 * t + 1))
        else:
            value = tl.load(row + tokens, mask=tokens < size, other=float("-inf"))
        score = value + gumbel(state, tokens)
        better = score > best  # a tie goes to the lower token id
        best, winner = tl.where(better, score, best), tl.where(better, tokens, winner)
    top = tl.max(best, 0)
    out = t * tl.num_programs(1) + chunk
    tl.store(best_out + out, top)
    tl.store(winner_out + out, tl.min(tl.where(best == top, winner, size), 0))


@triton.jit(do_not_specialize=["chunks"])
def _winner_kernel(best_in, winner_in, out, chunks):
    t = tl.program_id(0).to(tl.int64)
    best = float("-inf")
    winner = 0
    for chunk in range(chunks):
        score, token = tl.load(best_in + t * chunks + chunk), tl.load(winner_in + t * chunks + chunk)
        winner = tl.where(score > best, token, winner)
        best = tl.maximum(best, score)
    tl.store(out + t, winner.to(tl.int64))


def draw(logprobs: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Draw a token [T] int64 for each row of log-probs [T, V] fp32, with seeds and positions [T] int64."""
    return _draw(logprobs.contiguous(), None, 1.0, seeds, positions)


def draw_from_logits(
    logits: torch.Tensor, stats: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Like `draw`, but from contiguous logits [T, V] and their row_statistics [T, 2], without storing log-probs."""
    return _draw(logits, stats, temperature, seeds, positions)


def _draw(
    rows: torch.Tensor, stats: torch.Tensor | None, temperature: float, seeds: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    count, size = rows.shape
    chunks = ceil_div(size, CHUNK)
    best = torch.empty(count, chunks, dtype=torch.float32, device=rows.device)
    winners = torch.empty(count, chunks, dtype=torch.int32, device=rows.device)
    out = torch.empty(count, dtype=torch.int64, device=rows.device)
    _chunk_kernel[(count, chunks)](
        rows, best if stats is None else stats, seeds.contiguous(), positions.contiguous(), best, winners, size,
        float(temperature), TILE=TILE, CHUNK=CHUNK, LOGITS=stats is not None, num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    _winner_kernel[(count,)](best, winners, out, chunks, num_warps=1)
    return out
