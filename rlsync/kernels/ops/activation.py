"""The gated activation of the MLP."""

from __future__ import annotations

import torch

from rlsync.kernels.ops.backends import backend


class _SiluAndMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(gate, up)
        return backend(gate).silu_and_mul(gate, up)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        gate, up = ctx.saved_tensors
        gate32, grad32 = gate.to(torch.float32), grad.to(torch.float32)
        sigmoid = torch.sigmoid(gate32)
        silu = gate32 * sigmoid
        grad_gate = grad32 * up.to(torch.float32) * (sigmoid + silu * (1 - sigmoid))
        return grad_gate.to(gate.dtype), (grad32 * silu).to(up.dtype)


def silu_and_mul(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Compute silu(gate) * up for tensors of one shape; SiLU and the product are each rounded to the compute dtype."""
    return _SiluAndMul.apply(gate, up) if torch.is_grad_enabled() else backend(gate).silu_and_mul(gate, up)
