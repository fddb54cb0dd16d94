"""RMSNorm, which rounds as Hugging Face's models do."""

from __future__ import annotations

import torch

from rlsync.kernels.ops.backends import backend


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, eps):  # type: ignore[no-untyped-def]
        out, rstd = backend(x).rms_norm(x, w, eps)
        ctx.save_for_backward(x, w, rstd)
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, w, rstd = ctx.saved_tensors
        rows = x.reshape(-1, x.shape[-1])
        normed = rows.to(torch.float32) * rstd
        grad32 = grad.reshape(rows.shape).to(torch.float32)
        grad_normed = grad32 * w.to(torch.float32)
        mean = (grad_normed * normed).mean(-1, keepdim=True)
        grad_x = ((grad_normed - normed * mean) * rstd).to(rows.dtype).view(grad.shape)
        return grad_x, (grad32 * normed).sum(0).to(w.dtype), None


def rms_norm(x: torch.Tensor, w: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm of x [..., K] with weight w [K]: x rstd in fp32, rounded, times w, rounded again."""
    return _RMSNorm.apply(x, w, eps) if torch.is_grad_enabled() else backend(x).rms_norm(x, w, eps)[0]


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, w: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """RMSNorm of the rounded sum x + residual [..., K], and that sum (inference only)."""
    return backend(x).add_rms_norm(x, residual, w, eps)
