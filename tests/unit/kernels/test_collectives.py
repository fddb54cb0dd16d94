"""The tree across ranks over gloo gives the bits of the tree on one rank."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from rlsync.kernels import order
from rlsync.kernels.collectives import finish_across


def _on_ranks(roots, bias, dtype):
    """The result of each rank; each rank is a thread."""
    store, ranks = dist.HashStore(), len(roots)

    def rank(i):
        group = dist.ProcessGroupGloo(dist.PrefixStore("tree", store), i, ranks, timedelta(seconds=60))
        return finish_across(roots[i], group, bias, dtype)

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(rank, range(ranks)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_every_rank_gets_the_bits_of_the_tree(ranks, biased, dtype):
    g = torch.Generator().manual_seed(ranks)
    roots = torch.randn(ranks, 3, 5, 40, generator=g)
    roots *= torch.exp2(torch.randint(-40, 41, roots.shape, generator=g).float())
    bias = torch.randn(40, generator=g).to(dtype) if biased else None
    expected = order.finish(order.tree_sum(roots), bias, dtype)
    assert all(torch.equal(y, expected) for y in _on_ranks(roots, bias, dtype))


def test_control_another_order_of_ranks_differs():
    roots = torch.randn(4, 64, 64)
    swapped = roots[[0, 2, 1, 3]]
    assert not torch.equal(_on_ranks(roots, None, torch.float32)[0], order.tree_sum(swapped))
