"""The all-reduce's kernels, a rank after the other: buffers of the host, and flags that say that all have come."""

import pytest
import torch

from rlsync.kernels import order
from rlsync.kernels.triton.all_reduce import one_shot, two_shot

BLOCKS = 3
FLAGS, ROOM = BLOCKS * 8, 1 << 15
"""Of flags, and bytes of a slot, of parts and of results."""
OFFSETS = (8 * FLAGS, 8 * FLAGS + ROOM)


def _arrive(buffers, rank):
    """Every rank is far ahead, this one at exchange 6."""
    for buffer in buffers:
        buffer[:FLAGS] = 1 << 40
        buffer[rank : len(buffers) * BLOCKS : len(buffers)] = 6


def _run(kernel, roots, bias, dtype, offsets):
    ranks, m, n = roots.shape
    buffers = torch.zeros(ranks, (8 * FLAGS + 4 * ROOM) // 8, dtype=torch.int64)
    peers = torch.tensor([buffer.data_ptr() for buffer in buffers])
    outs = torch.zeros(ranks, m, n, dtype=dtype)
    for _ in range(3):  # the first time fills slots and parts, the second the results
        for rank in range(ranks):
            _arrive(buffers, rank)
            kernel[(BLOCKS,)](
                roots[rank].contiguous(), peers, outs if bias is None else bias, outs[rank], m * n, n, *offsets,
                RANK=rank, RANKS=ranks, TILE=64, HAS_BIAS=bias is not None,
            )  # fmt: skip
    return outs


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize(("m", "n"), [(1, 40), (5, 60)])
@pytest.mark.parametrize(("kernel", "offsets"), [(one_shot, (OFFSETS[0], ROOM)), (two_shot, (*OFFSETS, ROOM))])
def test_every_rank_gets_the_bits_of_the_tree(kernel, offsets, m, n, ranks):
    g = torch.Generator().manual_seed(ranks)
    roots = torch.randn(ranks, m, n, generator=g)
    roots *= torch.exp2(torch.randint(-40, 41, roots.shape, generator=g).float())
    for bias in (None, torch.randn(n, generator=g)):
        expected = order.finish(order.tree_sum(roots), bias, torch.float32)
        assert all(torch.equal(out, expected) for out in _run(kernel, roots, bias, torch.float32, offsets))


def test_control_another_order_of_ranks_differs():
    roots = torch.randn(4, 5, 60, generator=torch.Generator().manual_seed(0))
    out = _run(one_shot, roots, None, torch.float32, (OFFSETS[0], ROOM))[0]
    assert not torch.equal(out, order.tree_sum(roots[[0, 2, 1, 3]]))
