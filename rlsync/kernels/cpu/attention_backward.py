"""Gradient of packed attention, sequence by sequence, from the logsumexp of the forward pass."""

from __future__ import annotations

import itertools

import torch


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
    """Gradients of q [T, Hq, D], k and v [T, Hkv, D] in their dtypes; other arguments as in attention.py.

    `longest`, the length of the longest sequence, is of use to a GPU only.
    """
    grads = [torch.empty(t.shape, dtype=torch.float32, device=t.device) for t in (q, k, v)]
    for begin, end in itertools.pairwise(starts.tolist()):
        part = slice(begin, end)
        _attention_backward(
            *(t[part].to(torch.float32) for t in (q, k, v, out, grad)),
            lse[part], scale, window, *(g[part] for g in grads),
        )  # fmt: skip
    return grads[0].to(q.dtype), grads[1].to(k.dtype), grads[2].to(v.dtype)


def _attention_backward(q, k, v, out, grad, lse, scale, window, grad_q, grad_k, grad_v):  # type: ignore[no-untyped-def]
    """Gradients of one sequence, written into grad_q [T, Hq, D] and grad_k, grad_v [T, Hkv, D]; all fp32."""
    length, heads, dim = q.shape
    kv_heads = k.shape[1]
    # [Hkv, G, T, D]: the query heads of a group share keys and values.
    q, out, grad = (t.view(length, kv_heads, -1, dim).permute(1, 2, 0, 3) for t in (q, out, grad))
    k, v = (t.permute(1, 0, 2)[:, None] for t in (k, v))  # [Hkv, 1, T, D]
    lse = lse.t().reshape(kv_heads, -1, length, 1)
    distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    hidden = (distance < 0) | (distance >= window) if window else distance < 0
    scores = (q @ k.transpose(-1, -2)) * scale
    p = torch.exp(scores - lse).masked_fill(hidden, 0.0)
    delta = (out * grad).sum(-1, keepdim=True)
    grad_scores = p * (grad @ v.transpose(-1, -2) - delta) * scale
    grad_q.copy_((grad_scores @ k).permute(2, 0, 1, 3).reshape(length, heads, dim))
    grad_k.copy_((grad_scores.transpose(-1, -2) @ q).sum(1).permute(1, 0, 2))
    grad_v.copy_((p.transpose(-1, -2) @ grad).sum(1).permute(1, 0, 2))
