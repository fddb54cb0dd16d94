"""Log-softmax with temperature: x = logits / temperature, then x - max - log(sum of exp(x - max))."""

from __future__ import annotations

import numba
import numpy as np
import torch

from rlsync.kernels.cpu.arrays import fp32_array
from rlsync.kernels.cpu.scalar import LANES, exp32, fold_lanes, log64


@numba.njit(cache=True, nogil=True)
def _logprobs_kernel(logits, out, temperature):  # [T, V]
    lanes = np.empty(LANES, np.float32)
    size = logits.shape[1]
    whole = size - size % LANES
    exps = np.empty(size, np.float32)
    for t in range(logits.shape[0]):
        highest = -np.float32(np.inf)
        for v in range(size):
            x = logits[t, v] / temperature
            out[t, v] = x
            if x > highest or x != x:
                highest = x
        lanes[:] = 0
        for v in range(size):
            exps[v] = exp32(out[t, v] - highest)
        for v in range(0, whole, LANES):
            for i in range(LANES):
                lanes[i] += exps[v + i]
        for i in range(size - whole):
            lanes[i] += exps[whole + i]
        total = fold_lanes(lanes)
        log_sum = np.float32(log64(np.float64(total))) if total == total else total
        for v in range(size):
            out[t, v] = (out[t, v] - highest) - log_sum


def logprobs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """The fp32 log-probs [T, V] of fp32 logits [T, V] at `temperature`."""
    out = torch.empty(logits.shape, dtype=torch.float32)
    _logprobs_kernel(fp32_array(logits), out.numpy(), np.float32(temperature))
    return out
