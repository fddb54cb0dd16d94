"""The tree: TP shards give the bits of one rank, whatever the shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsync.errors import ConfigError
from rlsync.kernels import ops, order


def _product(m: int, n: int, k: int, dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    scale = torch.exp2(torch.randint(-20, 21, (1, k), generator=g).float())  # hard data: exponents far apart
    x = (torch.randn(m, k, generator=g) * scale).to(dtype)
    return x, torch.randn(n, k, generator=g).to(dtype)


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 9),
    n=st.integers(1, 70),
    leaf=st.integers(1, 33),
    log_leaves=st.integers(0, 4),
    log_tp=st.integers(0, 4),
    bf16=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_tp_shards_give_the_same_bits(m, n, leaf, log_leaves, log_tp, bf16, bias, seed):
    leaves, tp = 1 << log_leaves, 1 << min(log_tp, log_leaves)
    dtype = torch.bfloat16 if bf16 else torch.float32
    x, w = _product(m, n, leaf * leaves, dtype, seed)
    b = torch.randn(n).to(dtype) if bias else None
    whole = ops.row_parallel_linear(x, w, b, leaves=leaves)
    roots = [
        ops.row_parallel_root(xs, ws, order.local_leaves(leaves, tp))
        for xs, ws in zip(x.chunk(tp, 1), w.chunk(tp, 1), strict=True)
    ]
    assert torch.equal(order.finish(order.tree_sum(torch.stack(roots)), b, dtype), whole)


def test_control_a_sequential_sum_of_shards_differs():
    x, w = _product(64, 64, 512, torch.float32, 0)
    roots = [ops.row_parallel_root(a, b, 1) for a, b in zip(x.chunk(8, 1), w.chunk(8, 1), strict=True)]
    sequential = roots[0]
    for root in roots[1:]:
        sequential = sequential + root
    assert not torch.equal(sequential, ops.row_parallel_linear(x, w, leaves=8))


def test_control_library_shards_differ():
    x, w = _product(64, 64, 512, torch.float32, 0)
    shards = sum(a @ b.t() for a, b in zip(x.chunk(4, 1), w.chunk(4, 1), strict=True))
    assert not torch.equal(shards, x @ w.t())


@settings(deadline=None, max_examples=40)
@given(
    parts=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=8, max_size=8),
    log_tp=st.integers(0, 3),
)
def test_tree_sum_is_a_tree_of_subtrees(parts, log_tp):
    values = torch.tensor(parts, dtype=torch.float32)[:, None]
    subtrees = torch.stack([order.tree_sum(chunk) for chunk in values.chunk(1 << log_tp)])
    assert torch.equal(order.tree_sum(subtrees).view(torch.int32), order.tree_sum(values).view(torch.int32))


def test_tree_sum_refuses_what_is_no_tree():
    with pytest.raises(ValueError, match="power of two"):
        order.tree_sum(torch.zeros(3, 1))
    with pytest.raises(TypeError, match="float32"):
        order.tree_sum(torch.zeros(2, 1, dtype=torch.bfloat16))


@pytest.mark.parametrize(("leaves", "tp"), [(8, 3), (4, 8), (6, 2)])
def test_a_tp_that_owns_no_subtree_is_refused(leaves, tp):
    with pytest.raises(ConfigError, match=r"kernels\.tree_leaves"):
        order.local_leaves(leaves, tp)


def test_a_k_that_the_leaves_do_not_divide_names_the_gather_form():
    with pytest.raises(ConfigError, match="row_parallel=gather"):
        order.check_leaves_divide("down_proj", 201, 8)
