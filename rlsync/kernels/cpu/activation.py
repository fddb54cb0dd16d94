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


def silu_and_mul(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """SiLU of `gate` in fp32, rounded to its dtype, times `up`, rounded; both have one shape."""
    silu = torch.empty(gate.shape, dtype=torch.float32)
    _silu_kernel(fp32_array(gate).reshape(-1), silu.view(-1).numpy())
    return silu.to(gate.dtype) * up
