"""Digests of rows of logits: keyed sums (../keyed_sum.py) in which a token's id is the position of its logit."""

from __future__ import annotations

import numba
import numpy as np
import torch

from rlsync.kernels.cpu.arrays import fp32_array
from rlsync.kernels.keyed_sum import GOLDEN

_GOLDEN = np.int64(GOLDEN)


@numba.njit(cache=True, nogil=True)
def _row_digests_kernel(bits, out):  # [T, V], [T]
    for t in range(bits.shape[0]):
        total = np.int64(0)
        for v in range(bits.shape[1]):
            key = np.int64(v) * _GOLDEN
            key = (key ^ (key >> np.int64(29))) | np.int64(1)
            total += np.int64(bits[t, v]) * key
        out[t] = total


def row_digests(logits: torch.Tensor) -> torch.Tensor:
    """The digest [T] int64 of each row of fp32 logits [T, V].

    Two rows that differ in the bits of one logit always have different digests. Digests of parts of the vocabulary,
    with the keys of the whole, add up to the digest of the whole.
    """
    out = torch.empty(logits.shape[0], dtype=torch.int64)
    _row_digests_kernel(fp32_array(logits).view(np.int32), out.numpy())
    return out
