"""Stateless sampling: a token is a pure function of its row of log-probs, the seed and the position.

The method is Gumbel-max with noise from a hash. The hash is murmur3 of (seed, position, token), as in vLLM's V2 model
runner, so both runners can draw with the same noise.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from rlsync.kernels.cpu.scalar import log64

_U32 = np.uint32


@numba.njit(inline="always")
def _rotl(value, shift):
    return _U32(value << _U32(shift)) | _U32(value >> _U32(32 - shift))


@numba.njit(inline="always")
def _mix(h, key):
    key = _U32(key * _U32(0xCC9E2D51))
    key = _rotl(key, 15)
    key = _U32(key * _U32(0x1B873593))
    h = _rotl(_U32(h ^ key), 13)
    return _U32(_U32(h * _U32(5)) + _U32(0xE6546B64))


@numba.njit(inline="always")
def _finish(h):
    h = _U32(h ^ _U32(16))
    h = _U32(_U32(h ^ _U32(h >> _U32(16))) * _U32(0x85EBCA6B))
    h = _U32(_U32(h ^ _U32(h >> _U32(13))) * _U32(0xC2B2AE35))
    return _U32(h ^ _U32(h >> _U32(16)))


@numba.njit(cache=True, nogil=True)
def _draw_kernel(logprobs, seeds, positions, out):  # [T, V], [T], [T], [T]
    for t in range(logprobs.shape[0]):
        seed = seeds[t]
        h = _mix(_U32(0), _U32(seed & 0xFFFFFFFF))
        h = _mix(h, _U32((seed >> 32) & 0xFFFFFFFF))
        h = _mix(h, _U32(positions[t] & 0xFFFFFFFF))
        best, winner = -np.inf, 0
        for v in range(logprobs.shape[1]):
            u = (np.float64(_finish(_mix(h, _U32(v)))) + 0.5) * 2.0**-32
            score = np.float64(logprobs[t, v]) - log64(-log64(u))
            if score > best:  # a tie goes to the lower token id
                best, winner = score, v
        out[t] = winner


def draw(logprobs: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Draw one token for each row.

    Args:
        logprobs: [T, V] fp32.
        seeds: [T] int64, the seed of each row's request, 0 <= seed < 2^63.
        positions: [T] int64, the position in its sequence of the token that predicts; the first prompt token has 0.

    Returns:
        [T] int64 token ids.
    """
    out = torch.empty(logprobs.shape[0], dtype=torch.int64)
    arrays = (t.detach().contiguous().numpy() for t in (logprobs, seeds, positions))
    _draw_kernel(*arrays, out.numpy())
    return out
