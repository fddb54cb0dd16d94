"""In a prefix tree attention gives each row the bits that it has in its sequence, and the gradient is right."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsync.kernels import ops
from rlsync.kernels.attention_spec import AttentionSpec
from rlsync.kernels.row_ops import take_rows
from rlsync.trainer.prefix_tree import lay_as_tree

D, HEADS, KV, SCALE = 16, 4, 2, 0.25
FOREST = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 40), st.integers(1, 30)), min_size=2, max_size=7
)  # fmt: skip
"""For each sequence an earlier one, the number of tokens that they share, and the number of tokens that follow."""


def _layout(forest):
    sequences = [torch.arange(50)]
    for index, (parent, shared, own) in enumerate(forest):
        start = sequences[parent][:shared] if parent < len(sequences) else torch.arange(0)
        sequences.append(torch.cat((start, 100 * (index + 1) + torch.arange(own))))
    return lay_as_tree([*sequences, sequences[0][:3]])


def _qkv(rows, dtype):
    g = torch.Generator().manual_seed(rows)
    return [torch.randn(rows, heads, D, generator=g).to(dtype) for heads in (HEADS, KV, KV)]


def _attend(qkv, layout, window, paths=None):
    longest = int(layout.starts.diff().max())
    spec = AttentionSpec(starts=layout.starts, scale=SCALE, window=window, paths=paths or layout.paths, longest=longest)
    return ops.attention(*qkv, spec)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(deadline=None, max_examples=30)
@given(forest=FOREST, window=st.sampled_from([0, 1, 7]))
def test_rows_are_those_of_sequences_apart(dtype, forest, window):
    layout = _layout(forest)
    qkv = _qkv(layout.tokens.numel(), dtype)
    tree = _attend(qkv, layout, window)
    for rows in layout.rows:
        spec = AttentionSpec(starts=torch.tensor([0, rows.numel()]), scale=SCALE, window=window)
        alone = ops.attention(*(t[rows] for t in qkv), spec)
        assert torch.equal(tree[rows], alone)


def test_control_other_keys_change_bits():
    layout = _layout([(0, 20, 5), (0, 20, 9)])
    qkv = _qkv(layout.tokens.numel(), torch.float32)
    right = _attend(qkv, layout, 0)
    off = replace(layout.paths, table=(layout.paths.table - 1).clamp_min(0))
    assert not torch.equal(_attend(qkv, layout, 0, off), right)


def _naive(q, k, v, layout, window):
    """The rows, one at a time, each along the path of one sequence."""
    out = {}
    for rows in layout.rows:
        for t, row in enumerate(rows.tolist()):
            seen = rows[max(0, t + 1 - (window or t + 1)) : t + 1]
            keys, values = (x[seen].repeat_interleave(HEADS // KV, 1) for x in (k, v))
            weights = (torch.einsum("hd,khd->hk", q[row], keys) * SCALE).softmax(-1)
            out[row] = torch.einsum("hk,khd->hd", weights, values)
    return torch.stack([out[row] for row in range(len(out))])


@pytest.mark.parametrize("window", [0, 5])
def test_values_and_gradients(window):
    """Compared with float64: within the tolerance of packed attention, and no worse than separate sequences."""
    layout = _layout([(0, 20, 5), (0, 20, 30), (1, 23, 4), (9, 0, 12)])
    qkv = _qkv(layout.tokens.numel(), torch.float32)
    mine = [t.clone().requires_grad_() for t in qkv]
    reference = [t.double().requires_grad_() for t in qkv]
    grad = torch.randn(qkv[0].shape, generator=torch.Generator().manual_seed(1))
    out, want = _attend(mine, layout, window), _naive(*reference, layout, window)
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(out, mine, grad, retain_graph=True)
    exact = torch.autograd.grad(want, reference, grad.double())
    for g, r in zip(got, exact, strict=True):
        torch.testing.assert_close(g.double(), r, rtol=1e-4, atol=1e-5)
    again = torch.autograd.grad(out, mine, grad)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


def test_taken_rows_give_their_gradients_back():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).requires_grad_()
    index = torch.tensor([4, 1, 1, 0, 1])
    taken = take_rows(x, index)
    assert torch.equal(taken, x[index])
    grad = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    (got,) = torch.autograd.grad(taken, x, grad)
    wide = torch.zeros(5, 3)
    for row, each in zip(index.tolist(), grad.float(), strict=True):
        wide[row] += each
    assert torch.equal(got, wide.to(torch.bfloat16))  # one rounding of the sum
    assert not torch.equal(got[1], grad[1] + grad[2])  # the control: one term fewer
