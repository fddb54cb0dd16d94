"""Decode, chunked prefill and packed training give the same bits, whatever the pages; the gradient is right."""

import math
import random

import pytest
import torch

from rlsync.kernels import ops
from rlsync.kernels.attention_spec import AttentionSpec
from rlsync.kernels.triton import attention_launch
from rlsync.kernels.triton.tiles import is_hopper


def _random(rows, heads, dim, seed):
    g = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(rows, heads, dim, generator=g, device="cuda").to(torch.bfloat16)


def _cache(k, v, lengths, page):
    """A paged cache with scattered pages, which is NaN where nothing was written."""
    pages = [-(-n // page) for n in lengths]
    order = torch.randperm(sum(pages) + 5).tolist()
    cache = torch.full((len(order), k.shape[1], page, 2 * k.shape[2]), torch.nan, dtype=k.dtype, device="cuda")
    table = torch.zeros(len(lengths), max(pages), dtype=torch.int32)
    begin = 0
    for s, length in enumerate(lengths):
        rows = torch.cat((k[begin : begin + length], v[begin : begin + length]), -1)
        for p in range(pages[s]):
            table[s, p] = block = order.pop()
            part = rows[p * page : (p + 1) * page]
            cache[block, :, : part.shape[0]] = part.transpose(0, 1)
        begin += length
    return cache, table.cuda()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "window", "page", "longest"),
    [(16, 8, 128, 0, 16, 2500), (8, 2, 64, 0, 16, 1500), (16, 8, 128, 700, 32, 2500), (14, 2, 64, 0, 16, 1100),
     (4, 4, 256, 0, 16, 1200), (8, 1, 128, 0, 16, 32768), (16, 8, 128, 0, 64, 1500), (8, 2, 64, 300, 128, 1500)],
)  # fmt: skip
def test_one_function(heads, kv_heads, dim, window, page, longest):
    lengths = [longest, 37, 1024, 1]
    q, k, v = (_random(sum(lengths), h, dim, s) for s, h in enumerate((heads, kv_heads, kv_heads)))
    starts = torch.tensor([0, *lengths], device="cuda").cumsum(0)
    scale = 1 / math.sqrt(dim)
    packed = ops.attention(q, k, v, AttentionSpec(starts=starts, scale=scale, window=window))
    cache, table = _cache(k, v, lengths, page)
    counts = torch.tensor(lengths, device="cuda")

    last = starts[1:] - 1
    decoded = ops.decode_attention(q[last], cache, table, counts, scale, window)
    assert torch.equal(decoded, packed[last])
    each = torch.arange(5, device="cuda")
    assert torch.equal(ops.paged_attention(q[last], cache, table, each, counts, scale, window), decoded)
    padded = torch.cat((counts, torch.zeros_like(counts))), torch.cat((table, table)), torch.cat((q[last], q[last]))
    assert torch.equal(ops.decode_attention(padded[2], cache, padded[1], padded[0], scale, window)[:4], decoded)
    for new in ([100, 37, 1, 1], [longest, 5, 1000, 1]):
        rows = torch.cat([torch.arange(int(starts[s + 1]) - n, int(starts[s + 1])) for s, n in enumerate(new)])
        begin = torch.tensor([0, *new], device="cuda").cumsum(0)
        for pages in (cache, cache.transpose(1, 2).contiguous().transpose(1, 2)):  # dense, or tokens before heads
            assert torch.equal(ops.paged_attention(q[rows], pages, table, begin, counts, scale, window), packed[rows])
    for length in (1, 63, 64, 65, 1000, 1024, 1025, longest // 2):  # the sequence at the time when it had that length
        one = torch.tensor([length], device="cuda")
        alone = ops.decode_attention(q[length - 1 : length], cache, table[:1], one, scale, window)
        assert torch.equal(alone[0], packed[length - 1])
    cache[table[0, 0]] += 1  # the control; with a window that page is not read any more
    again = ops.decode_attention(q[last], cache, table, counts, scale, window)
    assert torch.equal(again[0], decoded[0]) == bool(window)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("window", [0, 100])
def test_values_and_gradients(window, dtype):
    lengths, heads, kv_heads, dim = [500, 200], 8, 4, 128
    shapes = enumerate((heads, kv_heads, kv_heads))
    tensors = [_random(sum(lengths), h, dim, s).to(dtype).requires_grad_() for s, h in shapes]
    starts = torch.tensor([0, *lengths], device="cuda").cumsum(0)
    grad = _random(sum(lengths), heads, dim, 9).to(dtype)
    out = ops.attention(*tensors, AttentionSpec(starts=starts, scale=1 / math.sqrt(dim), window=window))
    grads = torch.autograd.grad(out, tensors, grad, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(grads, torch.autograd.grad(out, tensors, grad), strict=True))

    wide = [t.detach().double().requires_grad_() for t in tensors]
    parts = []
    for s in range(2):
        q, k, v = (t[starts[s] : starts[s + 1]] for t in wide)
        k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
        distance = torch.arange(len(q), device="cuda")[:, None] - torch.arange(len(q), device="cuda")
        hidden = (distance < 0) | (distance >= (window or len(q)))
        scores = (torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(dim)).masked_fill(hidden, -math.inf)
        parts.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    expected = torch.cat(parts)
    for mine, right in zip((out, *grads), (expected, *torch.autograd.grad(expected, wide, grad.double())), strict=True):
        assert (mine.double() - right).norm() < 5e-3 * right.norm()


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize(("group", "window"), [(1, 0), (2, 0), (8, 0), (2, 1), (1, 100), (8, 700)])
def test_hopper_kernel_is_the_triton_kernel(dim, group, window):
    if not is_hopper(0):
        pytest.skip("needs a Hopper GPU")
    lengths = [1, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2500, *random.Random(dim + group).sample(range(900), 20)]
    kv_heads, broken = 2, 5
    heads = kv_heads * group
    starts = torch.tensor([0, *lengths], device="cuda", dtype=torch.int32).cumsum(0, dtype=torch.int32)
    fused = _random(sum(lengths), heads + 2 * kv_heads, dim, 1)
    fused[starts[broken] : starts[broken + 1]] = torch.nan
    q, k, v = fused.split([heads, kv_heads, kv_heads], 1)
    scale = 1 / math.sqrt(dim)
    strides = (0, k.stride(0), k.stride(1), 0, v.stride(0), v.stride(1))
    assert all(attention_launch._suits_tma(t) for t in (q, k, v))
    expected = attention_launch._prefill(q, k, v, starts, None, None, strides, 1, scale, window)
    whole = torch.ones(len(q), dtype=torch.bool, device="cuda")
    whole[starts[broken] : starts[broken + 1]] = False
    for _ in range(3):
        result = attention_launch.packed_attention(q, k, v, starts, scale, window)
        assert all(torch.equal(a[whole], b[whole]) for a, b in zip(result, expected, strict=True))
    assert result[0][whole].isfinite().all()
    control = attention_launch.packed_attention(q, k, v + 1, starts, scale, window)[0]
    assert not torch.equal(control[whole], result[0][whole])


@pytest.mark.parametrize("dim", [64, 128])
def test_hopper_kernel_over_many_short_tiles(dim):
    """A tile of queries that is overwritten while it is read shows in one of ten thousand tiles; here are a million."""
    if not is_hopper(0):
        pytest.skip("needs a Hopper GPU")
    heads, kv_heads, page, scale = 16, 8, 16, 1 / math.sqrt(dim)
    lengths = random.Random(dim).choices(range(1, 300), k=400)
    new = torch.tensor([random.Random(s).randint(1, n) for s, n in enumerate(lengths)], device="cuda")
    q, k, v = (_random(sum(lengths), h, dim, s) for s, h in enumerate((heads, kv_heads, kv_heads)))
    counts = torch.tensor(lengths, device="cuda", dtype=torch.int32)
    starts, begin = (torch.nn.functional.pad(n.cumsum(0, dtype=torch.int32), (1, 0)) for n in (counts, new))
    cache, table = _cache(k, v, lengths, page)
    q_new = _random(int(new.sum()), heads, dim, 3)
    halves = attention_launch._halves(cache)
    for window in (0, 1, 100):
        strides = (0, k.stride(0), k.stride(1), 0, v.stride(0), v.stride(1))
        packed = attention_launch._prefill(q, k, v, starts, None, None, strides, 1, scale, window)
        chunks = attention_launch._prefill(q_new, *halves[:2], begin, table, counts, halves[2], page, scale, window)[0]
        for _ in range(10):
            again = attention_launch.packed_attention(q, k, v, starts, scale, window)
            assert all(torch.equal(a, b) for a, b in zip(again, packed, strict=True))
            again = attention_launch.paged_attention(q_new, cache, table, begin, counts, scale, window)
            assert torch.equal(again, chunks)
    q[5, 3] += 1  # the control: one row of one head
    assert not torch.equal(attention_launch.packed_attention(q, k, v, starts, scale, window)[0], packed[0])
