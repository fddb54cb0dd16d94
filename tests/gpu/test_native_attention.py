"""PyTorch's flash attention over packs, as kernels=native calls it."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from rlsync.models.native_attention import packed_flash_forward

LENGTHS = (500, 1, 200)


def _random(heads, dim, seed):
    """[1, H, T, D], laid out as in the models."""
    g = torch.Generator("cuda").manual_seed(seed)
    t = torch.randn(1, sum(LENGTHS), heads, dim, generator=g, device="cuda").to(torch.bfloat16)
    return t.transpose(1, 2).requires_grad_()


def _dense(q, k, v, starts, scale, window):
    """[1, T, Hq, D]"""
    at = torch.arange(q.shape[2], device="cuda")
    sequence = torch.bucketize(at, starts[1:], right=True)
    far = at[:, None] - at
    seen = (sequence[:, None] == sequence) & (far >= 0) & (far < (window or len(at)))
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "window"), [(16, 8, 128, None), (14, 2, 64, None), (32, 8, 128, 100)]
)
def test_values_and_gradients(heads, kv_heads, dim, window):
    tensors = [_random(h, dim, seed) for seed, h in enumerate((heads, kv_heads, kv_heads))]
    starts = torch.tensor([0, *LENGTHS], device="cuda").cumsum(0)
    grad = _random(heads, dim, 9).detach().transpose(1, 2)
    scale, longest = dim**-0.5, max(LENGTHS)

    out, _ = packed_flash_forward(None, *tensors, None, scale, 0.0, window, starts=starts, longest=longest)
    grads = torch.autograd.grad(out, tensors, grad)
    wide = [t.detach().float().requires_grad_() for t in tensors]
    expected = _dense(*wide, starts, scale, window)
    dense = (expected.detach(), *torch.autograd.grad(expected, wide, grad.float()))
    for mine, right in zip((out, *grads), dense, strict=True):
        torch.testing.assert_close(mine.float(), right, rtol=2e-2, atol=1e-2 * float(right.abs().max()))
    whole = torch.tensor([0, sum(LENGTHS)], device="cuda")  # the control: one sequence
    wrong, _ = packed_flash_forward(None, *tensors, None, scale, 0.0, window, starts=whole, longest=sum(LENGTHS))
    assert not torch.allclose(wrong.float(), expected, rtol=2e-2, atol=2e-2)
