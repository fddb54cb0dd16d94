"""Gradient of attention by plain products: on the CPU, and for fp32, which PyTorch's flash attention does not take."""

from __future__ import annotations

from itertools import pairwise

import torch

_ROWS = 1024
"""Queries at a time, whose scores are [Hq, rows, keys]."""


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
    """Gradients of q, k and v, in the same order in every run where matrix products are.

    Args:
        grad, q, out: [T, Hq, D]; k, v: [N, Hkv, D]; lse: [T, Hq], of the scaled scores.
        bounds, key_bounds: [S + 1]; sequence s has queries bounds[s] .. and keys key_bounds[s] .., and its last query
            sees the last key.
        window: keys that a query sees, itself included; 0 = all.
    """
    grad_q, grad_k, grad_v = (torch.zeros_like(t) for t in (q, k, v))
    sequences = zip(pairwise(bounds.tolist()), pairwise(key_bounds.tolist()), strict=True)
    for (first, last), (first_key, last_key) in sequences:
        for begin in range(first, last, _ROWS):
            rows = slice(begin, min(begin + _ROWS, last))
            seen = slice(first_key, last_key - (last - rows.stop))  # by the last of these rows
            parts = segment_backward(*(t[rows] for t in (q, out, grad, lse)), k[seen], v[seen], scale, window)  # type: ignore[call-arg]
            grad_q[rows] = parts[0]
            grad_k[seen] += parts[1]
            grad_v[seen] += parts[2]
    return grad_q, grad_k, grad_v


def segment_backward(q, out, grad, lse, k, v, scale, window):  # type: ignore[no-untyped-def]
    """Gradients of the n queries of a segment [n, Hq, D] and of its L keys and values [L, Hkv, D], of which the last
    query sees the last; lse [n, Hq]; all of one dtype, fp32 or more."""
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
