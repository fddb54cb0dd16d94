"""Per-row results of a chunk of logits, and the chunk's gradient: nothing of its size is kept."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.triton.logprobs import TILE, log_prob, row_statistics, scaled
from rlsync.kernels.triton.sampling import TILE as _DRAW_TILE
from rlsync.kernels.triton.sampling import gumbel, keep_best, lowest_winner, stream


@triton.jit
def _pick_kernel(
    logits, stats, targets, seeds, positions, logprobs, draws, size, temperature,
    TILE: tl.constexpr, DRAWS: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0)
    row = logits + t.to(tl.int64) * size
    highest, log_sum = tl.load(stats + 2 * t), tl.load(stats + 2 * t + 1)
    target = scaled(row, tl.load(targets + t), size, temperature)
    tl.store(logprobs + t, log_prob(target, highest, log_sum))
    if DRAWS:
        state = stream(tl.load(seeds + t), tl.load(positions + t))
        best = tl.full([TILE], float("-inf"), tl.float32)
        winner = tl.zeros([TILE], tl.int32)
        for start in range(0, size, TILE):
            tokens = start + tl.arange(0, TILE)
            score = log_prob(scaled(row, tokens, size, temperature), highest, log_sum) + gumbel(state, tokens)
            best, winner = keep_best(best, winner, score, tokens)
        tl.store(draws + t, lowest_winner(best, winner, size))


@triton.jit
def _logit_grads_kernel(logits, targets, stats, grad, out, size, temperature, TILE: tl.constexpr):
    t = tl.program_id(0)
    row = t.to(tl.int64) * size
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    x = scaled(logits + row, at, size, temperature)
    p = tl.exp(log_prob(x, tl.load(stats + 2 * t), tl.load(stats + 2 * t + 1)))
    hit = tl.where(at == tl.load(targets + t), 1.0, 0.0)
    value = (hit - p) * tl.load(grad + t) / temperature
    tl.store(out + row + at, value.to(out.dtype.element_ty), mask=at < size)


def row_scores(
    logits: torch.Tensor,
    temperature: float,
    targets: torch.Tensor,
    seeds: torch.Tensor | None,
    positions: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Arguments and results as in rlsync.kernels.cpu.scores; the bits of this package's logprobs and draw."""
    logits = logits.contiguous()
    rows, size = logits.shape
    stats, entropy = row_statistics(logits, temperature)
    logprobs = torch.empty(rows, dtype=torch.float32, device=logits.device)
    draws = None if seeds is None else torch.empty(rows, dtype=torch.int64, device=logits.device)
    unused = targets
    _pick_kernel[(rows,)](
        logits, stats, targets.contiguous(), unused if seeds is None else seeds.contiguous(),
        unused if positions is None else positions.contiguous(), logprobs, unused if draws is None else draws, size,
        float(temperature), TILE=_DRAW_TILE, DRAWS=draws is not None, num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    return logprobs, entropy, stats, draws


def logit_grads(
    logits: torch.Tensor,
    temperature: float,
    targets: torch.Tensor,
    stats: torch.Tensor,
    grad: torch.Tensor,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Arguments and results as in rlsync.kernels.cpu.scores."""
    logits = logits.contiguous()
    rows, size = logits.shape
    out = torch.empty(rows, size, dtype=dtype, device=logits.device)
    _logit_grads_kernel[(rows, triton.cdiv(size, TILE))](
        logits, targets.contiguous(), stats, grad.contiguous(), out, size, float(temperature),
        TILE=TILE, num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    return out
