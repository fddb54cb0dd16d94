"""Attention: paged decode, chunked prefill and packed training are one function."""

import pytest
import torch

from rlsync.kernels import ops
from rlsync.kernels.attention_spec import AttentionSpec

D, KV = 16, 2
LENGTHS = [1, 20, 33]


def _qkv(dtype, heads=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    total = sum(LENGTHS)
    q = torch.randn(total, heads, D, generator=g).to(dtype)
    k, v = (torch.randn(total, KV, D, generator=g).to(dtype) for _ in range(2))
    return q, k, v, torch.tensor([0, *LENGTHS]).cumsum(0)


def _attention(q, k, v, starts, window=0):
    return ops.attention(q, k, v, AttentionSpec(starts=starts, scale=0.25, window=window))


def _cache(k, v, starts, block, seed):
    """A paged cache with scattered pages, which is NaN where nothing was written."""
    pages = [-(-n // block) for n in LENGTHS]
    order = torch.randperm(sum(pages) + 3, generator=torch.Generator().manual_seed(seed))
    cache = torch.full((len(order), KV, block, 2 * D), float("nan"), dtype=k.dtype)
    table = torch.zeros(len(LENGTHS), max(pages), dtype=torch.int32)
    used = 0
    for s, length in enumerate(LENGTHS):
        table[s, : pages[s]] = order[used : used + pages[s]]
        used += pages[s]
        for j in range(length):
            row = int(starts[s]) + j
            cache[table[s, j // block], :, j % block] = torch.cat((k[row], v[row]), -1)
    return cache, table


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [0, 1, 7])
@pytest.mark.parametrize("block", [16, 32])
def test_paged_equals_packed(dtype, window, block):
    q, k, v, starts = _qkv(dtype)
    packed = _attention(q, k, v, starts, window)
    cache, table = _cache(k, v, starts, block, seed=block)
    # The last 1, 5 and 33 tokens of each sequence are new: decode, a chunk, a whole prompt.
    new = [1, 5, 33]
    rows = torch.cat([torch.arange(int(starts[s + 1]) - n, int(starts[s + 1])) for s, n in enumerate(new)])
    out = ops.paged_attention(
        q[rows], cache, table, torch.tensor([0, *new]).cumsum(0), torch.tensor(LENGTHS), 0.25, window
    )
    assert torch.equal(out, packed[rows])


def test_control_another_key_changes_bits():
    q, k, v, starts = _qkv(torch.float32)
    before = _attention(q, k, v, starts)
    k[25] += 1e-3
    after = _attention(q, k, v, starts)
    assert torch.equal(before[:25], after[:25])
    assert not torch.equal(before[25:], after[25:])


def test_a_sequence_does_not_know_its_pack():
    q, k, v, starts = _qkv(torch.bfloat16)
    whole = _attention(q, k, v, starts, 9)
    for s in range(len(LENGTHS)):
        part = slice(int(starts[s]), int(starts[s + 1]))
        alone = _attention(q[part], k[part], v[part], torch.tensor([0, LENGTHS[s]]), 9)
        assert torch.equal(alone, whole[part])


def test_freed_pages_left_of_the_window_are_not_read():
    q, k, v, starts = _qkv(torch.float32)
    cache, table = _cache(k, v, starts, 16, seed=1)
    cache[table[2, 0]] = float("nan")  # positions 0-15 of a sequence of 33, window 7
    rows = slice(int(starts[3]) - 1, int(starts[3]))
    args = (torch.tensor([0, 1]), torch.tensor([33]), 0.25, 7)
    out = ops.paged_attention(q[rows], cache, table[2:], *args)
    assert torch.equal(out, _attention(q, k, v, starts, 7)[rows])


@pytest.mark.parametrize("window", [0, 5])
def test_values_and_gradients(window):
    q, k, v, starts = _qkv(torch.float32)
    mine = [t.clone().requires_grad_() for t in (q, k, v)]
    reference = [t.double().requires_grad_() for t in (q, k, v)]
    grad = torch.randn(q.shape)
    out = _attention(*mine, starts, window)
    want = _naive(*reference, starts, 0.25, window)
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(out, mine, grad)
    for g, r in zip(got, torch.autograd.grad(want, reference, grad.double()), strict=True):
        torch.testing.assert_close(g.double(), r, rtol=1e-4, atol=1e-5)


def _naive(q, k, v, starts, scale, window):
    out = []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        qs, ks, vs = q[begin:end], k[begin:end].repeat_interleave(2, 1), v[begin:end].repeat_interleave(2, 1)
        distance = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
        visible = (distance >= 0) & (distance < (window or end))
        scores = torch.einsum("qhd,khd->hqk", qs, ks) * scale
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~visible, -torch.inf).softmax(-1), vs))
    return torch.cat(out)
