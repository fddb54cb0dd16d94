"""The kernels of the all-reduce, one rank after another, with buffers on the host and flags that are already set."""

import pytest
import torch

from rlsync.kernels import order
from rlsync.kernels.triton.all_reduce import low_latency, one_shot, two_shot

BLOCKS = 3
FLAGS, ROOM = BLOCKS * 8, 1 << 15
"""Size of the flags, and size of a slot, of the parts and of the results, in bytes."""
OFFSETS = (8 * FLAGS, 8 * FLAGS + ROOM)


def _arrive(buffers, rank):
    """Set the flags of all other ranks far ahead, and those of this rank to exchange 6."""
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


def _run_low_latency(roots, bias, exchange):
    """The result of each rank after the words of its peers have arrived; also checks the words that it sends."""
    ranks, m, n = roots.shape
    size, piece, slot = m * n, ROOM // 8 // ranks, (OFFSETS[0] + exchange % 2 * ROOM) // 8
    bits = roots.view(torch.int32).reshape(ranks, size).long() & 0xFFFFFFFF
    outs = torch.zeros(ranks, m, n)
    for rank in range(ranks):
        buffers = torch.zeros(ranks, (8 * FLAGS + 2 * ROOM) // 8, dtype=torch.int64)
        pieces = buffers[:, slot : slot + ranks * piece].view(ranks, ranks, piece)
        pieces[rank, :, :size] = (exchange << 32) | bits
        buffers[rank, rank : ranks * BLOCKS : ranks] = exchange - 1
        peers = torch.tensor([buffer.data_ptr() for buffer in buffers])
        low_latency[(BLOCKS,)](
            roots[rank].contiguous(), peers, outs if bias is None else bias, outs[rank], size, n, OFFSETS[0], ROOM,
            RANK=rank, RANKS=ranks, TILE=128, HAS_BIAS=bias is not None,
        )  # fmt: skip
        sent = ((exchange << 32) | bits[rank]).expand(ranks - 1, -1)
        assert torch.equal(pieces[[r for r in range(ranks) if r != rank], rank, :size], sent)
        assert (buffers[rank, rank : ranks * BLOCKS : ranks] == exchange).all()
    return outs


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("exchange", [7, (1 << 31) + 4])
def test_words_give_the_bits_of_the_tree(exchange, ranks):
    roots = torch.randn(ranks, 5, 60, generator=torch.Generator().manual_seed(ranks))
    for bias in (None, torch.randn(60)):
        expected = order.finish(order.tree_sum(roots), bias, torch.float32)
        out = _run_low_latency(roots, bias, exchange)
        assert all(torch.equal(o, expected) for o in out)


def test_control_another_order_of_ranks_differs():
    roots = torch.randn(4, 5, 60, generator=torch.Generator().manual_seed(0))
    out = _run(one_shot, roots, None, torch.float32, (OFFSETS[0], ROOM))[0]
    assert not torch.equal(out, order.tree_sum(roots[[0, 2, 1, 3]]))
