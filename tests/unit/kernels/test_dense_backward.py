"""The dense gradient of attention equals that of autograd."""

import math

import pytest
import torch

from rlsync.kernels import dense_backward as module
from rlsync.kernels.dense_backward import dense_backward

HEADS, KV_HEADS, DIM = 4, 2, 8
QUERIES, KEYS = (1, 37, 5), (1, 37, 20)
"""The last sequence has only its last queries, like a branch of a prefix tree."""


def _case(window):
    """Inputs, output, logsumexp and gradients, in float64."""
    g = torch.Generator().manual_seed(window)
    q, grad = (torch.randn(sum(QUERIES), HEADS, DIM, generator=g, dtype=torch.float64) for _ in range(2))
    k, v = (torch.randn(sum(KEYS), KV_HEADS, DIM, generator=g, dtype=torch.float64) for _ in range(2))
    tensors = [t.requires_grad_() for t in (q, k, v)]
    bounds, key_bounds = (torch.tensor([0, *lengths]).cumsum(0) for lengths in (QUERIES, KEYS))
    outs, sums = [], []
    for s, (rows, keys) in enumerate(zip(QUERIES, KEYS, strict=True)):
        own, seen = slice(bounds[s], bounds[s + 1]), slice(key_bounds[s], key_bounds[s + 1])
        key, value = (t[seen].repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        distance = torch.arange(keys - rows, keys)[:, None] - torch.arange(keys)
        hidden = (distance < 0) | (distance >= (window or keys))
        scores = (torch.einsum("qhd,khd->hqk", q[own], key) / math.sqrt(DIM)).masked_fill(hidden, -math.inf)
        sums.append(scores.logsumexp(-1).T)
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value))
    out, lse = torch.cat(outs), torch.cat(sums)
    expected = torch.autograd.grad(out, tensors, grad)
    return (grad, *(t.detach() for t in (*tensors, out, lse)), bounds, key_bounds, 1 / math.sqrt(DIM)), expected


@pytest.mark.parametrize("rows", [4, 1024])
@pytest.mark.parametrize("window", [0, 1, 6])
def test_gradients(window, rows, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", rows)
    arguments, expected = _case(window)
    torch.testing.assert_close(dense_backward(*arguments, window), expected)
    other = dense_backward(*arguments, 3)  # the control
    assert not torch.allclose(other[0], expected[0])
