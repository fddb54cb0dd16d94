"""Matrix products in which each leaf is a sum in increasing k."""

from __future__ import annotations

import numba
import numpy as np
import torch

from rlsync.kernels.cpu.arrays import fp32_array
from rlsync.kernels.order import finish, tree_sum

_COLUMNS = 64


@numba.njit(cache=True, nogil=True)
def _matmul_leaves_kernel(x, w, y, leaves):  # x [M, K], w [N, K], y [leaves, M, N]
    m_size, k_size = x.shape
    n_size = w.shape[0]
    leaf = k_size // leaves
    panel = np.empty((leaf, _COLUMNS), np.float32)
    acc0 = np.empty(_COLUMNS, np.float32)
    acc1 = np.empty(_COLUMNS, np.float32)
    for g in range(leaves):
        base = g * leaf
        for n0 in range(0, n_size, _COLUMNS):
            width = min(_COLUMNS, n_size - n0)
            for n in range(_COLUMNS):
                for k in range(leaf):
                    panel[k, n] = w[n0 + n, base + k] if n < width else np.float32(0)
            for m in range(0, m_size, 2):
                m1 = min(m + 1, m_size - 1)
                acc0[:] = 0
                acc1[:] = 0
                k = 0
                # Four steps of k at a time, added one after another, so the sums keep their order.
                while k + 4 <= leaf:
                    a0, a1, a2, a3 = x[m, base + k], x[m, base + k + 1], x[m, base + k + 2], x[m, base + k + 3]
                    b0, b1, b2, b3 = x[m1, base + k], x[m1, base + k + 1], x[m1, base + k + 2], x[m1, base + k + 3]
                    for n in range(_COLUMNS):
                        w0, w1, w2, w3 = panel[k, n], panel[k + 1, n], panel[k + 2, n], panel[k + 3, n]
                        acc0[n] = (((acc0[n] + a0 * w0) + a1 * w1) + a2 * w2) + a3 * w3
                        acc1[n] = (((acc1[n] + b0 * w0) + b1 * w1) + b2 * w2) + b3 * w3
                    k += 4
                while k < leaf:
                    a0, b0 = x[m, base + k], x[m1, base + k]
                    for n in range(_COLUMNS):
                        acc0[n] += a0 * panel[k, n]
                        acc1[n] += b0 * panel[k, n]
                    k += 1
                for n in range(width):
                    y[g, m, n0 + n] = acc0[n]
                    y[g, m1, n0 + n] = acc1[n]


def matmul_leaves(x: torch.Tensor, w: torch.Tensor, leaves: int) -> torch.Tensor:
    """The partial products x w^T of each leaf.

    Args:
        x: [M, K] fp32 or bf16.
        w: [N, K], same dtype.
        leaves: number of leaves, which are equal contiguous ranges of K.

    Returns:
        [leaves, M, N] fp32.
    """
    y = torch.empty(leaves, x.shape[0], w.shape[0], dtype=torch.float32)
    if x.shape[0]:
        _matmul_leaves_kernel(fp32_array(x), fp32_array(w), y.numpy(), leaves)
    return y


def matmul(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, leaves: int, out_dtype: torch.dtype
) -> torch.Tensor:
    """The product x [M, K] w [N, K]^T in the tree of `leaves` leaves, plus the bias [N], rounded once: [M, N]."""
    return finish(tree_sum(matmul_leaves(x, w, leaves)), bias, out_dtype)
