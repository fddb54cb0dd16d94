"""Results of each row of a chunk of logits, and the gradient with respect to the logits."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rlsync.kernels.row_results import DrawnTokens, RowScores
from rlsync.kernels.triton.logprobs import TILE, log_prob, row_statistics, scaled
from rlsync.kernels.triton.sampling import draw_from_logits
from rlsync.kernels.triton.tiles import ceil_div


@triton.jit
def _target_kernel(logits, stats, targets, logprobs, size, temperature):
    t = tl.program_id(0).to(tl.int64)
    x = scaled(logits + t * size, tl.load(targets + t), size, temperature)
    tl.store(logprobs + t, log_prob(x, tl.load(stats + 2 * t), tl.load(stats + 2 * t + 1)))


@triton.jit
def _logit_grads_kernel(
    logits, targets, stats, grad, entropy, entropy_grad, out, size, temperature,
    TILE: tl.constexpr, ENTROPY: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0)
    row = t.to(tl.int64) * size
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    x = scaled(logits + row, at, size, temperature)
    logp = log_prob(x, tl.load(stats + 2 * t), tl.load(stats + 2 * t + 1))
    p = tl.exp(logp)
    hit = tl.where(at == tl.load(targets + t), 1.0, 0.0)
    value = (hit - p) * tl.load(grad + t) / temperature
    if ENTROPY:
        pull = tl.where(p > 0, p * (logp + tl.load(entropy + t)), 0.0)  # so that 0 * -inf is 0
        value -= pull * tl.load(entropy_grad + t) / temperature
    tl.store(out + row + at, value.to(out.dtype.element_ty), mask=at < size)


def _target_logprobs(
    logits: torch.Tensor, stats: torch.Tensor, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The log-probs [T] fp32 of targets [T] int64, from contiguous logits [T, V] and their row_statistics."""
    rows, size = logits.shape
    logprobs = torch.empty(rows, dtype=torch.float32, device=logits.device)
    _target_kernel[(rows,)](
        logits, stats, targets, logprobs, size, float(temperature), num_warps=1, enable_fp_fusion=False
    )
    return logprobs


def row_scores(
    logits: torch.Tensor,
    temperature: float,
    targets: torch.Tensor,
    seeds: torch.Tensor | None,
    positions: torch.Tensor | None,
) -> RowScores:
    """Compute the results that are kept of rows of logits, with the bits of this package's logprobs and draw.

    Arguments are as in cpu/scores.py.
    """
    logits = logits.contiguous()
    stats, entropy, digests = row_statistics(logits, temperature)
    logprobs = _target_logprobs(logits, stats, targets.contiguous(), temperature)
    draws = None
    if seeds is not None and positions is not None:
        draws = draw_from_logits(logits, stats, temperature, seeds, positions)
    return RowScores(logprobs, entropy, stats, digests, draws)


def draw_scored(logits: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor) -> DrawnTokens:
    """Draw tokens from contiguous logits [T, V], with log-probs and digests as by row_scores."""
    stats, _, digests = row_statistics(logits, temperature)
    tokens = draw_from_logits(logits, stats, temperature, seeds, positions)
    return DrawnTokens(tokens, _target_logprobs(logits, stats, tokens, temperature), digests)


def logit_grads(
    logits: torch.Tensor,
    temperature: float,
    targets: torch.Tensor,
    stats: torch.Tensor,
    grad: torch.Tensor,
    dtype: torch.dtype,
    entropy: torch.Tensor | None = None,
    entropy_grad: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gradient of row_scores with respect to the logits; arguments and results are as in cpu/scores.py."""
    logits = logits.contiguous()
    rows, size = logits.shape
    bonus = entropy is not None and entropy_grad is not None
    extra = (entropy.contiguous(), entropy_grad.contiguous()) if bonus else (stats, stats)  # placeholders
    out = torch.empty(rows, size, dtype=dtype, device=logits.device)
    _logit_grads_kernel[(rows, ceil_div(size, TILE))](
        logits, targets.contiguous(), stats, grad.contiguous(), *extra, out, size, float(temperature),
        TILE=TILE, ENTROPY=bonus, num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    return out
