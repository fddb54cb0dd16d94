"""Log-probs of given targets, without holding all logits [tokens, vocabulary] at once.

The head runs over chunks of rows, and only results of a row are kept. The backward pass computes the logits of each
chunk again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rlsync.kernels.ops import backend
from rlsync.kernels.row_results import TargetScores

_CHUNK_BYTES = 512 * 2**20
"""Largest size of a chunk's fp32 logits, in bytes."""
_MAX_ROWS = 8192
"""Largest number of rows of a chunk."""
_ROWS_MULTIPLE = 128
"""Chunks are multiples of the row tile of a GEMM, so that its tiles are full; the bits do not depend on it."""


def _chunks(hidden: torch.Tensor, weight: torch.Tensor) -> Iterator[slice]:
    total = hidden.shape[0]
    rows = max(1, min(_MAX_ROWS, _CHUNK_BYTES // (4 * weight.shape[0])))
    if rows > _ROWS_MULTIPLE:
        rows -= rows % _ROWS_MULTIPLE
    return (slice(first, min(first + rows, total)) for first in range(0, total, rows))


def _logits(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return backend(hidden).matmul(hidden, weight, None, 1, torch.float32)


def _add_product(total: torch.Tensor, grads: torch.Tensor, hidden: torch.Tensor) -> None:
    """Add grads [T, V]^T hidden [T, K] to total [V, K] fp32 in place."""
    if grads.dtype == torch.float32:
        total.addmm_(grads.t(), hidden)
    else:
        torch.addmm(total, grads.t(), hidden, out_dtype=torch.float32, out=total)


class _TargetScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, seeds, positions):  # type: ignore[no-untyped-def]
        parts = []
        for rows in _chunks(hidden, weight):
            keys = (None, None) if seeds is None else (seeds[rows], positions[rows])
            # The logits are not bound to a name, so their memory is free before the next chunk's logits are made.
            parts.append(backend(hidden).row_scores(_logits(hidden[rows], weight), temperature, targets[rows], *keys))
        logprobs, entropy, stats, digests = (torch.cat([part[i] for part in parts]) for i in range(4))
        draws = None if seeds is None else torch.cat([part.draws for part in parts])
        ctx.save_for_backward(hidden, weight, targets, stats, entropy)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)  # no gradient of zeros for an output that is not used
        ctx.mark_non_differentiable(*(digests,) if draws is None else (digests, draws))
        return logprobs, entropy, digests, draws

    @staticmethod
    def backward(ctx, grad, entropy_grad, *_):  # type: ignore[no-untyped-def]
        hidden, weight, targets, stats, entropy = ctx.saved_tensors
        if grad is None:
            grad = torch.zeros_like(entropy)
        # bf16 GEMMs are slow on a CPU.
        dtype = torch.float32 if hidden.device.type == "cpu" else hidden.dtype
        wide = weight.to(dtype)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for rows in _chunks(hidden, weight):
            extra = (None, None) if entropy_grad is None else (entropy[rows], entropy_grad[rows])
            grads = backend(hidden).logit_grads(
                _logits(hidden[rows], weight), ctx.temperature, targets[rows], stats[rows], grad[rows], dtype, *extra
            )
            if grad_hidden is not None:
                grad_hidden[rows] = grads @ wide
            if grad_weight is not None:
                _add_product(grad_weight, grads, hidden[rows].to(dtype))
            del grads  # frees the memory before the next chunk
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None


def target_scores(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    *,
    seeds: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> TargetScores:
    """Log-prob of each row's target, entropy of each row, and digest of each row's logits.

    The log-probs have the bits of `ops.logprobs(ops.lm_head(hidden, weight), temperature)`.

    Args:
        hidden: [T, K] in the compute dtype.
        weight: [V, K] in the same dtype.
        targets: [T] int64.
        temperature: temperature of the policy.
        seeds, positions: [T] int64; if they are given, a token is drawn from each row as by `ops.draw`.

    Raises:
        ValueError: only one of `seeds` and `positions` is given.
    """
    if (seeds is None) != (positions is None):
        raise ValueError("target_scores: a draw needs both seeds and positions, but only one of them is given")
    return TargetScores(*_TargetScores.apply(hidden, weight, targets, temperature, seeds, positions))
