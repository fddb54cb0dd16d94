"""Gradients of attention, one segment after another, from the log-sum-exp of the forward pass."""

from __future__ import annotations

import itertools

import torch

from rlsync.kernels.cpu.attention import end_to_end
from rlsync.kernels.dense_backward import segment_backward
from rlsync.kernels.key_paths import KeyPaths


def packed_attention_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    starts: torch.Tensor,
    scale: float,
    window: int,
    longest: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q [T, Hq, D], k and v [T, Hkv, D] in their dtypes.

    Args:
        grad: [T, Hq, D], gradient of `out`.
        q, k, v, starts, scale, window: as in `packed_attention`.
        out, lse: the results of `packed_attention`.
        longest: number of rows of the longest segment, which only GPUs need.
    """
    return tree_attention_backward(grad, q, k, v, out, lse, starts, end_to_end(starts), scale, window, longest)


def tree_attention_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    starts: torch.Tensor,
    paths: KeyPaths,
    scale: float,
    window: int,
    longest: int,  # noqa: ARG001 (the backends share one interface)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Like packed_attention_backward, for a prefix tree; shared keys and values get the sum of their gradients."""
    grad_q = torch.empty(q.shape, dtype=torch.float32)
    grad_k, grad_v = (torch.zeros(t.shape, dtype=torch.float32) for t in (k, v))
    bounds = itertools.pairwise(starts.tolist())
    for (begin, end), path, length in zip(bounds, paths.table, paths.lengths.tolist(), strict=True):
        own, keys = slice(begin, end), path[:length]
        parts = segment_backward(
            *(t[own].to(torch.float32) for t in (q, out, grad)), lse[own],
            *(t.index_select(0, keys).to(torch.float32) for t in (k, v)), scale, window,
        )  # fmt: skip
        grad_q[own] = parts[0]
        grad_k.index_add_(0, keys, parts[1])
        grad_v.index_add_(0, keys, parts[2])
    return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype)
