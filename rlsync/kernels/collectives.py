"""Collectives across tensor-parallel ranks: the ranks only exchange data, and each adds in the order of the tree."""

from __future__ import annotations

import torch
import torch.distributed as dist

from rlsync.kernels import ops, order


def all_gather(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Gather x [...] from n ranks: [n, ...], in the order of the ranks."""
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(group.size())]
    dist.all_gather(parts, x, group=group)
    return torch.stack(parts)


def tree_all_reduce(root: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Sum the ranks' roots [...] fp32 in the tree that a single rank would use."""
    return order.tree_sum(all_gather(root, group))


def finish_across(
    root: torch.Tensor,
    group: dist.ProcessGroup,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    *,
    share_memory: bool = True,
) -> torch.Tensor:
    """Add the ranks' roots in the order of the tree, then the bias, and round once (collective).

    Args:
        root: [..., N] fp32, this rank's root.
        group: the tensor-parallel ranks.
        bias: [N], or None.
        dtype: dtype of the result.
        share_memory: GPUs of one host may write to each other's memory. Otherwise NCCL gathers the roots, which gives
            the same bits.

    Returns:
        [..., N] in `dtype`, on all ranks.
    """
    if root.is_cuda:
        return ops.gpu_backend(root).finish_across(root, group, bias, dtype, share_memory)
    return order.finish(tree_all_reduce(root, group), bias, dtype)


def gather_columns(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Gather x [T, C] from n ranks: [T, n C], with the ranks' columns side by side."""
    return torch.cat(tuple(all_gather(x, group)), dim=-1)
