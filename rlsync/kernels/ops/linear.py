"""Matrix products in which each output is a sum over all of K in one fixed order.

Shapes: K inputs, N outputs, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch

from rlsync.kernels.ops.backends import backend


def row_parallel_root(x: torch.Tensor, w: torch.Tensor, leaves: int) -> torch.Tensor:
    """The root of a rank's subtree, x [..., K] w [N, K]^T with `leaves` leaves: [..., N] fp32, not rounded, no bias."""
    return _matmul(x, w, None, leaves, torch.float32)


def _matmul(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, leaves: int, out_dtype: torch.dtype
) -> torch.Tensor:
    out = backend(x).matmul(x.reshape(-1, x.shape[-1]), w, bias, leaves, out_dtype)
    return out.view(*x.shape[:-1], w.shape[0])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, bias, leaves, out_dtype):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, w)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return _matmul(x, w, bias, leaves, out_dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, w = ctx.saved_tensors
        # The library's bf16 product sums in fp32 on a GPU, and on a CPU it is slow.
        kind = x.dtype if x.is_cuda else torch.float32
        rows = grad.reshape(-1, grad.shape[-1])
        narrow = rows.to(kind)
        grad_x = (narrow @ w.to(kind)).to(x.dtype).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_w = (narrow.t() @ x.reshape(-1, x.shape[-1]).to(kind)).to(w.dtype) if ctx.needs_input_grad[1] else None
        grad_b = rows.sum(0, dtype=torch.float32).to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None
        return grad_x, grad_w, grad_b, None, None


def _linear(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, leaves: int, out_dtype: torch.dtype
) -> torch.Tensor:
    if torch.is_grad_enabled():
        return _Linear.apply(x, w, bias, leaves, out_dtype)
    return _matmul(x, w, bias, leaves, out_dtype)  # autograd's bookkeeping takes a third of the time of a launch


def linear(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The product x [..., K] w [N, K]^T plus the bias [N], rounded once: [..., N]. Sums run over K in increasing k."""
    return _linear(x, w, bias, 1, x.dtype)


def row_parallel_linear(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None, *, leaves: int
) -> torch.Tensor:
    """Like `linear`, but K is summed in the tree of `leaves` leaves (order.py), as tensor-parallel ranks do."""
    return _linear(x, w, bias, leaves, x.dtype)


def lm_head(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The fp32 logits [T, V] of hidden states x [T, K] and the head's weight w [V, K] in the compute dtype."""
    return _linear(x, w, None, 1, torch.float32)
