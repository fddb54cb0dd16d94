"""Digests of rows of logits: sums over the bits of the logits, each times a key of its token (../row_keys.py)."""

from __future__ import annotations

import numba
import numpy as np
import torch

from rlsync.kernels.cpu.arrays import fp32_array
from rlsync.kernels.row_keys import HIGH, HIGH_SHIFT, LOW, LOW_SHIFT

_LOW, _HIGH, _ONE = np.uint32(LOW), np.uint32(HIGH), np.uint32(1)
_LOW_SHIFT, _HIGH_SHIFT, _HALF = np.uint32(LOW_SHIFT), np.uint32(HIGH_SHIFT), np.uint64(32)


@numba.njit(cache=True, nogil=True)
def _row_digests_kernel(bits, keys, out):  # [T, V], [V], [T]
    for v in range(bits.shape[1]):
        low, high = np.uint32(np.uint32(v) * _LOW), np.uint32(np.uint32(v) * _HIGH)
        low = (low ^ (low >> _LOW_SHIFT)) | _ONE
        high = high ^ (high >> _HIGH_SHIFT)
        keys[v] = (np.uint64(high) << _HALF) + np.uint64(low)
    for t in range(bits.shape[0]):
        total = np.uint64(0)
        for v in range(bits.shape[1]):
            total += np.uint64(bits[t, v]) * keys[v]
        out[t] = total


def row_digests(logits: torch.Tensor) -> torch.Tensor:
    """The digest [T] int64, modulo 2^64, of each row of fp32 logits [T, V].

    Two rows that differ in the bits of one logit always have different digests. Digests of parts of the vocabulary,
    with the keys of the whole, add up to the digest of the whole.
    """
    out = torch.empty(logits.shape[0], dtype=torch.int64)
    keys = np.empty(logits.shape[1], np.uint64)
    _row_digests_kernel(fp32_array(logits).view(np.uint32), keys, out.numpy().view(np.uint64))
    return out
