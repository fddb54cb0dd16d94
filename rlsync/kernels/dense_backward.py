"""Gradient of attention by plain products, for what PyTorch's flash attention does not take (fp32)."""

from __future__ import annotations

from itertools import pairwise

import torch

_ROWS = 1024
"""Queries at a time: their scores are [Hq, rows, keys]."""


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
    inner = (grad * out).sum(-1, keepdim=True)  # [T, Hq, 1]
    for (first, last), (first_key, last_key) in zip(
        pairwise(bounds.tolist()), pairwise(key_bounds.tolist()), strict=True
    ):
        own = slice(first_key, last_key)
        keys, values = (t[own].transpose(0, 1)[:, None] for t in (k, v))  # [Hkv, 1, n, D]
        for begin in range(first, last, _ROWS):
            rows = slice(begin, min(begin + _ROWS, last))
            query, up, mean, total = (_by_key_head(t[rows], k.shape[1]) for t in (q, grad, inner, lse[..., None]))
            weights = torch.exp(query @ keys.mT * scale - total)  # [Hkv, G, r, n]
            at = torch.arange(rows.start, rows.stop, device=q.device)[:, None] - last
            distance = at - (torch.arange(first_key, last_key, device=q.device) - last_key)
            hidden = (distance < 0) | (distance >= window) if window else distance < 0
            weights = weights.masked_fill(hidden, 0.0)
            scores = weights * (up @ values.mT - mean) * scale
            grad_q[rows] = (scores @ keys).permute(2, 0, 1, 3).reshape(query.shape[2], *q.shape[1:])
            grad_k[own] += (scores.mT @ query).sum(1).transpose(0, 1)
            grad_v[own] += (weights.mT @ up).sum(1).transpose(0, 1)
    return grad_q, grad_k, grad_v


def _by_key_head(t: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """[r, Hq, D] -> [Hkv, Hq / Hkv, r, D]"""
    return t.unflatten(1, (kv_heads, -1)).permute(1, 2, 0, 3)
