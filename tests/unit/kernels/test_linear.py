"""Whole-K products: order of the sum, independence of rows and columns, bias, gradients."""

import numpy as np
import pytest
import torch

from rlsync.kernels import ops

DTYPES = [torch.float32, torch.bfloat16]


def _data(m, n, k, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(m, k, generator=g).to(dtype), torch.randn(n, k, generator=g).to(dtype)


def test_sum_is_sequential_with_rounded_products():
    """Compared with a scalar loop: no fused multiply-add and no other order, so every x86 machine gives these bits."""
    x, w = _data(3, 70, 37, torch.float32)
    want = np.zeros((3, 70), np.float32)
    for k in range(37):
        want = want + x.numpy()[:, k : k + 1] * w.numpy()[None, :, k]
    assert torch.equal(ops.linear(x, w), torch.from_numpy(want))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_know_the_others(dtype):
    x, w = _data(67, 130, 96, dtype)
    whole = ops.linear(x, w)
    for rows in (slice(0, 1), slice(5, 6), slice(3, 20), slice(64, 67)):
        assert torch.equal(ops.linear(x[rows], w), whole[rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_column_does_not_know_the_others(dtype):
    """Column shards, the gather form and fused qkv projections therefore give the same bits."""
    x, w = _data(9, 131, 96, dtype)
    whole = ops.linear(x, w)
    assert torch.equal(torch.cat([ops.linear(x, part) for part in w.split([1, 30, 64, 36])], 1), whole)


def test_strides_do_not_matter():
    x, w = _data(8, 16, 64, torch.float32)
    assert torch.equal(ops.linear(x.t().contiguous().t(), w.t().contiguous().t()), ops.linear(x, w))


def test_bias_joins_before_the_one_rounding():
    x, w = _data(64, 64, 64, torch.bfloat16)
    bias = torch.randn(64).to(torch.bfloat16)
    y = ops.linear(x, w, bias)
    root = ops.row_parallel_root(x, w, 1)
    assert torch.equal(y, (root + bias.float()).to(torch.bfloat16))
    assert not torch.equal(y, root.to(torch.bfloat16) + bias)  # the control: two roundings


def test_logits_of_bf16_are_not_rounded():
    x, w = _data(8, 32, 64, torch.bfloat16)
    assert torch.equal(ops.lm_head(x, w), ops.lm_head(x.float(), w.float()))


@pytest.mark.parametrize("leaves", [1, 4])
def test_gradients(leaves):
    x, w = _data(7, 11, 16, torch.float32)
    bias, grad = torch.randn(11), torch.randn(7, 11)
    mine = [t.clone().requires_grad_() for t in (x, w, bias)]
    reference = [t.double().requires_grad_() for t in (x, w, bias)]
    got = torch.autograd.grad(ops.row_parallel_linear(*mine, leaves=leaves), mine, grad)
    want = torch.autograd.grad(torch.nn.functional.linear(*reference), reference, grad.double())
    for g, r in zip(got, want, strict=True):
        torch.testing.assert_close(g.double(), r, rtol=1e-5, atol=1e-5)


def test_empty_batch():
    assert ops.linear(torch.zeros(0, 8), torch.zeros(4, 8)).shape == (0, 4)
