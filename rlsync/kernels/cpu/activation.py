"""SiLU as x / (1 + exp(-x))."""

from __future__ import annotations

import numba
import numpy as np
import torch

from rlsync.kernels.cpu.scalar import exp32


@numba.njit(cache=True, nogil=True)
def _silu_kernel(x, y):  # [L]
    for i in range(x.shape[0]):
        y[i] = x[i] / (np.float32(1) + exp32(-x[i]))


def silu(x: torch.Tensor) -> torch.Tensor:
    """Elementwise SiLU in fp32, rounded once to x's dtype."""
    x32 = x.detach().to(torch.float32).contiguous()
    y = torch.empty_like(x32)
    _silu_kernel(x32.view(-1).numpy(), y.view(-1).numpy())
    return y.to(x.dtype)
