"""Gradients of attention by dense matrix products, on the CPU and for fp32, which flash attention does not support."""

from __future__ import annotations

from itertools import pairwise

import torch

_ROWS = 1024
"""Number of queries whose scores [Hq, rows, keys] are held at a time."""


def dense_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, with equal bits in every run if matrix products have them.

    Args:
        grad, q, out: [T, Hq, D].
        k, v: [N, Hkv, D].
        lse: [T, Hq], log-sum-exp of each row's scaled scores.
        bounds: [S + 1]; the queries of sequence s begin at bounds[s].
        key_bounds: [S + 1]; the keys of sequence s begin at key_bounds[s], and its last query sees its last key.
        scale: factor of the scores.
        window: number of keys that a query sees, itself included; 0 for all.
    """
    grad_q, grad_k, grad_v = (torch.zeros_like(t) for t in (q, k, v))
    sequences = zip(pairwise(bounds.tolist()), pairwise(key_bounds.tolist()), strict=True)
    for (first, last), (first_key, last_key) in sequences:
        for begin in range(first, last, _ROWS):
            rows = slice(begin, min(begin + _ROWS, last))
            seen = slice(first_key, last_key - (last - rows.stop))  # the keys up to that of the last of these rows
            parts = segment_backward(*(t[rows] for t in (q, out, grad, lse)), k[seen], v[seen], scale, window)  # type: ignore[call-arg]
            grad_q[rows] = parts[0]
            grad_k[seen] += parts[1]
            grad_v[seen] += parts[2]
    return grad_q, grad_k, grad_v


def segment_backward(q, out, grad, lse, k, v, scale, window):  # type: ignore[no-untyped-def]
    """Gradients of one segment's queries, and of the keys and values that they see; all tensors have one dtype.

    Args:
        q, out, grad: [n, Hq, D], in fp32 or fp64.
        lse: [n, Hq].
        k, v: [L, Hkv, D]; the last query sees the last key.
        scale, window: as in `dense_backward`.
    """
    count, heads, dim = q.shape
    length, kv_heads, _ = k.shape
    # [Hkv, G, n, D]: the query heads of a group share keys and values.
    q, out, grad = (t.unflatten(1, (kv_heads, -1)).permute(1, 2, 0, 3) for t in (q, out, grad))
    k, v = (t.permute(1, 0, 2)[:, None] for t in (k, v))  # [Hkv, 1, L, D]
    lse = lse.t().reshape(kv_heads, -1, count, 1)
    at = torch.arange(length, device=q.device)
    distance = at[length - count :, None] - at
    hidden = (distance < 0) | (distance >= window) if window else distance < 0
    scores = (q @ k.transpose(-1, -2)) * scale
    p = torch.exp(scores - lse).masked_fill(hidden, 0.0)
    delta = (out * grad).sum(-1, keepdim=True)
    grad_scores = p * (grad @ v.transpose(-1, -2) - delta) * scale
    grad_q = (grad_scores @ k).permute(2, 0, 1, 3).reshape(count, heads, dim)
    grad_k = (grad_scores.transpose(-1, -2) @ q).sum(1).permute(1, 0, 2)
    grad_v = (p.transpose(-1, -2) @ grad).sum(1).permute(1, 0, 2)
    return grad_q, grad_k, grad_v
