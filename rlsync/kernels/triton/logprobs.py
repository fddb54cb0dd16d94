"""Log-softmax with temperature over fixed chunks of the vocabulary.

With x = logits / temperature it is x - max - log(sum of exp(x - max)). Each chunk of a row is summed by a program of
its own, and the chunks merge in order. All callers use one kernel for these statistics, because the order of a sum
within a tile follows the layout of registers, which may differ in another kernel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.row_keys import HIGH, HIGH_SHIFT, LOW, LOW_SHIFT
from rlsync.kernels.triton.tiles import ceil_div

TILE = 4096
"""Number of lanes of a chunk's sum; lane i adds the tokens i, i + TILE and so on, in order."""
CHUNK = 4 * TILE
"""Number of tokens of a chunk."""
_LOW, _HIGH = tl.constexpr(LOW), tl.constexpr(HIGH)
_LOW_SHIFT, _HIGH_SHIFT = tl.constexpr(LOW_SHIFT), tl.constexpr(HIGH_SHIFT)


@triton.jit
def _load(row, at, size):
    """The logits of the tokens `at`, and -inf beyond the row's end."""
    return tl.load(row + at, mask=at < size, other=float("-inf"))


@triton.jit
def _divided(logits, temperature):
    """The values logits / temperature."""
    if temperature != 1.0:  # at a temperature of 1 the slow division would change nothing
        logits = tl.div_rn(logits, temperature)
    return logits


@triton.jit
def scaled(row, at, size, temperature):
    """The values logits / temperature of the tokens `at`, and -inf beyond the row's end."""
    return _divided(_load(row, at, size), temperature)


@triton.jit
def log_prob(x, highest, log_sum):
    """The log-prob of x = logits / temperature, from its row's maximum and logarithm of the sum."""
    return (x - highest) - log_sum


@triton.jit
def _chunk_kernel(logits, parts, digests, size, temperature, TILE: tl.constexpr, CHUNK: tl.constexpr):
    """Write statistics of each chunk of a row.

    parts [T, chunks, 3] are the maximum of x, the sum of exp(x - max), and the sum of exp(x - max) (x - max). digests
    [T, chunks] are the parts of the row digests (../cpu/row_digests.py), made while the logits are first read.
    """
    t, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = logits + t * size
    first = chunk * CHUNK
    last = tl.minimum(first + CHUNK, size)
    highest = float("-inf")
    low_sum = tl.zeros([TILE], tl.uint64)
    high_sum = tl.zeros([TILE], tl.uint64)
    for start in range(first, last, TILE):
        at = start + tl.arange(0, TILE)
        logit = _load(row, at, size)
        highest = tl.maximum(highest, tl.max(_divided(logit, temperature), 0))
        bits = tl.where(at < size, logit.to(tl.uint32, bitcast=True), 0).to(tl.uint64)
        low = (at.to(tl.uint32) * _LOW).to(tl.uint32)
        high = (at.to(tl.uint32) * _HIGH).to(tl.uint32)
        low_sum += bits * ((low ^ (low >> _LOW_SHIFT)) | 1).to(tl.uint64)
        high_sum += bits * (high ^ (high >> _HIGH_SHIFT)).to(tl.uint64)
    digest = (low_sum + (high_sum << 32)).to(tl.int64, bitcast=True)
    base = tl.where(highest == float("-inf"), 0.0, highest)
    total = tl.zeros([TILE], tl.float32)
    weighted = tl.zeros([TILE], tl.float32)
    for start in range(first, last, TILE):
        below = scaled(row, start + tl.arange(0, TILE), size, temperature) - base
        part = tl.exp(below)
        total += part
        weighted += tl.where(part > 0, part * below, 0.0)  # so that 0 * -inf is 0
    out = parts + (t * tl.num_programs(1) + chunk) * 3
    tl.store(out, highest)
    tl.store(out + 1, tl.sum(total, 0))
    tl.store(out + 2, tl.sum(weighted, 0))
    tl.store(digests + t * tl.num_programs(1) + chunk, tl.sum(digest, 0))


@triton.jit(do_not_specialize=["chunks"])
def _merge_kernel(parts, chunk_digests, stats, entropy, digests, chunks):
    """Merge the chunks of a row in order."""
    t = tl.program_id(0).to(tl.int64)
    row = parts + t * chunks * 3
    highest = float("-inf")
    for chunk in range(chunks):
        highest = tl.maximum(highest, tl.load(row + 3 * chunk))
    total = 0.0
    weighted = 0.0
    digest = tl.zeros([], tl.int64)
    for chunk in range(chunks):
        below = tl.load(row + 3 * chunk) - highest
        part, moment = tl.load(row + 3 * chunk + 1), tl.load(row + 3 * chunk + 2)
        fade = tl.exp(below)
        total += part * fade
        weighted += tl.where(part > 0, (moment + part * below) * fade, 0.0)
        digest += tl.load(chunk_digests + t * chunks + chunk)
    log_sum = tl.log(total)
    tl.store(stats + 2 * t, highest)
    tl.store(stats + 2 * t + 1, log_sum)
    tl.store(entropy + t, log_sum - weighted / total)
    tl.store(digests + t, digest)


@triton.jit
def _logprobs_kernel(logits, stats, out, size, temperature, TILE: tl.constexpr):
    t = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    x = scaled(logits + t * size, at, size, temperature)
    value = log_prob(x, tl.load(stats + 2 * t), tl.load(stats + 2 * t + 1))
    tl.store(out + t * size + at, value, mask=at < size)


def row_statistics(logits: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Statistics of each row of contiguous fp32 logits [T, V], with x = logits / temperature.

    Returns:
        [T, 2] fp32, the maximum of x and the logarithm of the sum of exp(x - max); the entropy [T] fp32; and the digest
        [T] int64 of the logits' bits.
    """
    rows, size = logits.shape
    chunks = ceil_div(size, CHUNK)
    parts = torch.empty(rows, chunks, 3, dtype=torch.float32, device=logits.device)
    chunk_digests = torch.empty(rows, chunks, dtype=torch.int64, device=logits.device)
    stats = torch.empty(rows, 2, dtype=torch.float32, device=logits.device)
    entropy = torch.empty(rows, dtype=torch.float32, device=logits.device)
    digests = torch.empty(rows, dtype=torch.int64, device=logits.device)
    _chunk_kernel[(rows, chunks)](
        logits, parts, chunk_digests, size, float(temperature), TILE=TILE, CHUNK=CHUNK, num_warps=8,
        enable_fp_fusion=False,
    )  # fmt: skip
    _merge_kernel[(rows,)](parts, chunk_digests, stats, entropy, digests, chunks, num_warps=1, enable_fp_fusion=False)
    return stats, entropy, digests


def row_digests(logits: torch.Tensor) -> torch.Tensor:
    """The digest [T] int64 of each row of fp32 logits [T, V], as in ../cpu/row_digests.py."""
    return row_statistics(logits.contiguous(), 1.0)[2]


def logprobs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """The fp32 log-probs [T, V] of fp32 logits [T, V] at `temperature`."""
    logits = logits.contiguous()
    rows, size = logits.shape
    stats, _, _ = row_statistics(logits, temperature)
    out = torch.empty_like(logits)
    _logprobs_kernel[(rows, ceil_div(size, TILE))](
        logits, stats, out, size, float(temperature), TILE=TILE, num_warps=8, enable_fp_fusion=False
    )
    return out
