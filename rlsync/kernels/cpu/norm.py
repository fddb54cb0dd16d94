"""RMSNorm, with its reduction in lanes."""

from __future__ import annotations

import numba
import numpy as np
import torch

from rlsync.kernels.cpu.arrays import fp32_array
from rlsync.kernels.cpu.scalar import LANES, fold_lanes


@numba.njit(cache=True, nogil=True)
def _rms_rstd_kernel(x, rstd, eps):  # x [T, H], rstd [T]
    lanes = np.empty(LANES, np.float32)
    size = x.shape[1]
    for t in range(x.shape[0]):
        lanes[:] = 0
        whole = size - size % LANES
        for h in range(0, whole, LANES):
            for i in range(LANES):
                lanes[i] += x[t, h + i] * x[t, h + i]
        for i in range(size - whole):
            lanes[i] += x[t, whole + i] * x[t, whole + i]
        mean = fold_lanes(lanes) / np.float32(size)
        rstd[t] = np.float32(1) / np.sqrt(mean + eps)


def rms_norm(x: torch.Tensor, w: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """RMSNorm of x [..., H]: x rstd in fp32, rounded, times w, rounded, with rstd = 1 / sqrt(mean(x^2) + eps).

    Returns:
        The result [..., H], and rstd [rows, 1] fp32.
    """
    rows = x.reshape(-1, x.shape[-1])
    rstd = torch.empty(rows.shape[0], 1, dtype=torch.float32)
    _rms_rstd_kernel(fp32_array(rows), rstd.view(-1).numpy(), np.float32(eps))
    return ((rows.to(torch.float32) * rstd).to(w.dtype) * w).to(x.dtype).view(x.shape), rstd


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, w: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """RMSNorm of the rounded sum x + residual [..., H], and that sum."""
    total = residual + x
    return rms_norm(total, w, eps)[0], total
