"""Log-probs, and tokens drawn from them.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import torch

from rlsync.kernels.ops.backends import backend
from rlsync.kernels.row_results import DrawnTokens


class _Logprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, temperature):  # type: ignore[no-untyped-def]
        out = backend(logits).logprobs(logits, temperature)
        ctx.save_for_backward(out)
        ctx.temperature = temperature
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (out,) = ctx.saved_tensors
        return (grad - out.exp() * grad.sum(-1, keepdim=True)) / ctx.temperature, None


def logprobs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """log_softmax(logits / temperature) in fp32: [T, V] -> [T, V]."""
    return _Logprobs.apply(logits, temperature)


def draw(rows: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Draw tokens [T] int64, as a pure function of log-probs [T, V], seeds [T] and positions [T]."""
    return backend(rows).draw(rows, seeds, positions)


def draw_scored(logits: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor) -> DrawnTokens:
    """Draw tokens from the log-probs of contiguous fp32 logits [T, V], by seeds [T] and positions [T]."""
    return backend(logits).draw_scored(logits, temperature, seeds, positions)


def row_digests(logits: torch.Tensor) -> torch.Tensor:
    """The digest [T] int64 of the bits of each row of fp32 logits [T, V], the same on every device."""
    return backend(logits).row_digests(logits)


def greedy(rows: torch.Tensor) -> torch.Tensor:
    """The most probable token of each row of log-probs [T, V]: [T]. A tie goes to the lower token id."""
    return (rows == rows.amax(-1, keepdim=True)).to(torch.int8).argmax(-1)
