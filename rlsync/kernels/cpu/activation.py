"""SiLU as x / (1 + exp(-x))."""

from __future__ import annotations

import numba
import numpy as np
import torch

from rlsync.kernels.cpu.arrays import fp32_array
from rlsync.kernels.cpu.scalar import exp32


@numba.njit(cache=True, nogil=True)
def _silu_kernel(x, y):  # [L]
    for i in range(x.shape[0]):
        y[i] = x[i] / (np.float32(1) + exp32(-x[i]))


def silu(x: torch.Tensor) -> torch.Tensor:
    """Elementwise SiLU in fp32, rounded once to x's dtype."""
    y = torch.empty(x.shape, dtype=torch.float32)
    _silu_kernel(fp32_array(x).reshape(-1), y.view(-1).numpy())
    return y.to(x.dtype)
