"""Rows shared out among ranks, and rows taken by index and summed back."""

from __future__ import annotations

import torch

from rlsync.kernels.deterministic import deterministic


def share_of(count: int, ranks: int, rank: int) -> tuple[int, int]:
    """First row and the one after the last that `rank` has of `count` rows: as many each, but at the end (as
    torch.chunk, and so FSDP2's dim 0)."""
    size = -(-count // ranks)
    return min(rank * size, count), min((rank + 1) * size, count)


def sum_rows(values: torch.Tensor, index: torch.Tensor, count: int) -> torch.Tensor:
    """Row i of the result is the sum of the rows of `values` whose index is i, 0 where there is none.

    In fp32, and the same bits in every run.

    Args:
        values: [N, ...]; index: [N] integers below `count`.
    Returns:
        [count, ...] fp32.
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
    """Rows `index` [N] of x [T, ...]; a row may be taken several times, and its gradients add up by `sum_rows`."""
    return _TakeRows.apply(x, index)
