"""Log-softmax with temperature over fixed chunks of the vocabulary.

With x = logits / temperature it is x - max - log(sum of exp(x - max)). Each chunk of a row is summed by a program of
its own, and the chunks merge in order. All callers use one kernel for these statistics, because the order of a sum
within a tile follows the layout of registers, which may differ in another kernel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.triton.tiles import ceil_div

TILE = 4096
"""Number of lanes of a chunk's sum; lane i adds the tokens i, i + TILE and so on, in order."""
CHUNK = 4 * TILE
"""Number of tokens of a chunk."""


@triton.jit
def scaled(row, at, size, temperature):
    """The values logits / temperature of the tokens `at`, and -inf beyond the row's end."""
    x = tl.load(row + at, mask=at < size, other=float("-inf"))
    if temperature != 1.0:  # at a temperature of 1 the slow division would change nothing
        x = tl.div_rn(x, temperature)
    return x


@triton.jit
def log_prob(x, highest, log_sum):
    """The log-prob of x = logits / temperature, from its row's maximum and logarithm of the sum."""
    return (x - highest) - log_sum


@triton.jit
def _chunk_kernel(logits, parts, size, temperature, TILE: tl.constexpr, CHUNK: tl.constexpr):
    """Write parts [T, chunks, 3]: the maximum of x, the sum of exp(x - max), and the sum of exp(x - max) (x - max)."""
    t, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = logits + t * size
    first = chunk * CHUNK
    last = tl.minimum(first + CHUNK, size)
    highest = float("-inf")
    for start in range(first, last, TILE):
        x = scaled(row, start + tl.arange(0, TILE), size, temperature)
        highest = tl.maximum(highest, tl.max(x, 0))
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


@triton.jit(do_not_specialize=["chunks"])
def _merge_kernel(parts, stats, entropy, chunks):
    """Merge the chunks of a row in order."""
    t = tl.program_id(0).to(tl.int64)
    row = parts + t * chunks * 3
    highest = float("-inf")
    for chunk in range(chunks):
        highest = tl.maximum(highest, tl.load(row + 3 * chunk))
    total = 0.0
    weighted = 0.0
    for chunk in range(chunks):
        below = tl.load(row + 3 * chunk) - highest
        part, moment = tl.load(row + 3 * chunk + 1), tl.load(row + 3 * chunk + 2)
        fade = tl.exp(below)
        total += part * fade
        weighted += tl.where(part > 0, (moment + part * below) * fade, 0.0)
    log_sum = tl.log(total)
    tl.store(stats + 2 * t, highest)
    tl.store(stats + 2 * t + 1, log_sum)
    tl.store(entropy + t, log_sum - weighted / total)


@triton.jit
def _logprobs_kernel(logits, stats, out, size, temperature, TILE: tl.constexpr):
    t = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    x = scaled(logits + t * size, at, size, temperature)
    value = log_prob(x, tl.load(stats + 2 * t), tl.load(stats + 2 * t + 1))
    tl.store(out + t * size + at, value, mask=at < size)


def row_statistics(logits: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Statistics of each row of contiguous fp32 logits [T, V], with x = logits / temperature.

    Returns:
        [T, 2] fp32, the maximum of x and the logarithm of the sum of exp(x - max); and the entropy [T] fp32.
    """
    rows, size = logits.shape
    chunks = ceil_div(size, CHUNK)
    parts = torch.empty(rows, chunks, 3, dtype=torch.float32, device=logits.device)
    stats = torch.empty(rows, 2, dtype=torch.float32, device=logits.device)
    entropy = torch.empty(rows, dtype=torch.float32, device=logits.device)
    _chunk_kernel[(rows, chunks)](
        logits, parts, size, float(temperature), TILE=TILE, CHUNK=CHUNK, num_warps=8, enable_fp_fusion=False
    )
    _merge_kernel[(rows,)](parts, stats, entropy, chunks, num_warps=1, enable_fp_fusion=False)
    return stats, entropy


def logprobs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """The fp32 log-probs [T, V] of fp32 logits [T, V] at `temperature`."""
    logits = logits.contiguous()
    rows, size = logits.shape
    stats, _ = row_statistics(logits, temperature)
    out = torch.empty_like(logits)
    _logprobs_kernel[(rows, ceil_div(size, TILE))](
        logits, stats, out, size, float(temperature), TILE=TILE, num_warps=8, enable_fp_fusion=False
    )
    return out
