"""Gradients of attention, equal in every run: the backward pass of PyTorch's flash attention, or dense for fp32."""

from __future__ import annotations

import torch

from rlsync.kernels.dense_backward import dense_backward
from rlsync.kernels.deterministic import deterministic
from rlsync.kernels.key_paths import KeyPaths
from rlsync.kernels.row_ops import sum_rows


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
    """Gradients of q, k and v; arguments are as in cpu/attention_backward.py."""
    bounds = starts.to(torch.int32)
    return _backward(grad, q, k, v, out, lse, bounds, bounds, longest, longest, scale, window)


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
    longest: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Like packed_attention_backward, for a prefix tree. It copies the keys of one PathChunk at a time end to end."""
    grad_q = torch.empty_like(q)
    grad_k, grad_v = (torch.zeros(t.shape, dtype=torch.float32, device=t.device) for t in (k, v))
    for chunk in paths.chunks:
        lengths = paths.lengths[chunk.segments]
        keys, key_bounds = _flat(paths.table[chunk.segments], lengths, chunk.keys)
        own = starts[chunk.segments.start : chunk.segments.stop + 1]
        grad_q[chunk.rows], of_keys, of_values = _backward(
            *(t[chunk.rows] for t in (grad, q)), k.index_select(0, keys), v.index_select(0, keys),
            *(t[chunk.rows] for t in (out, lse)), (own - own[0]).to(torch.int32), key_bounds,
            longest, paths.table.shape[1], scale, window,
        )  # fmt: skip
        grad_k += sum_rows(of_keys, keys, k.shape[0])
        grad_v += sum_rows(of_values, keys, v.shape[0])
    return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype)


def _flat(table: torch.Tensor, lengths: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay paths [G, P] with `lengths` [G] end to end, without a wait for the GPU.

    Returns:
        The rows of all paths [total], and the bounds of the paths [G + 1] int32.
    """
    ends = lengths.cumsum(0)
    at = torch.arange(total, device=table.device)
    segment = torch.searchsorted(ends, at, right=True)
    keys = table[segment, at - (ends - lengths)[segment]].to(torch.int64)
    return keys, torch.cat((ends.new_zeros(1), ends)).to(torch.int32)


def _backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    most_rows: int,
    most_keys: int,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of sequences whose queries begin at bounds[s] and keys at key_bounds[s]; last query sees last key."""
    if q.dtype == torch.float32:
        return dense_backward(grad, q, k, v, out, lse, bounds, key_bounds, scale, window)
    state = torch.zeros(2, dtype=torch.uint64, device=q.device)  # state of dropout's generator, which is not used
    with deterministic():
        return torch.ops.aten._flash_attention_backward(
            grad.contiguous(), q, k, v, out, lse.t().contiguous(), bounds, key_bounds, most_rows, most_keys, 0.0, True,
            state, state[:1], scale=scale, window_size_left=window - 1 if window else -1, window_size_right=0,
        )  # fmt: skip
