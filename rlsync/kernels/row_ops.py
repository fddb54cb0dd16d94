"""Functions of rows: shares of ranks, selection by index, and sums by index in a fixed order."""

from __future__ import annotations

import torch

from rlsync.kernels.deterministic import deterministic


def share_of(count: int, ranks: int, rank: int) -> tuple[int, int]:
    """A rank's share of `count` rows, by the rule of torch.chunk, which FSDP2 uses for dim 0.

    All shares have the same size, except that the last ones may be smaller or empty.

    Returns:
        The first row of the share, and the one after its last.
    """
    size = -(-count // ranks)
    return min(rank * size, count), min((rank + 1) * size, count)


def sum_rows(values: torch.Tensor, index: torch.Tensor, count: int) -> torch.Tensor:
    """Sum the rows of `values` that have the same index, in fp32 and with equal bits in every run.

    Args:
        values: [N, ...].
        index: [N] integers below `count`.
        count: number of rows of the result.

    Returns:
        [count, ...] fp32; row i is the sum of the rows with index i, or 0 if there are none.
    """
    total = torch.zeros(count, *values.shape[1:], dtype=torch.float32, device=values.device)
    with deterministic():
        return total.index_add_(0, index, values.to(torch.float32))


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, index):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(index)
        ctx.count = x.shape[0]
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (index,) = ctx.saved_tensors
        return sum_rows(grad, index, ctx.count).to(grad.dtype), None


def take_rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The rows `index` [N] of x [T, ...]. A row may occur several times; `sum_rows` adds up its gradients."""
    return _TakeRows.apply(x, index)
