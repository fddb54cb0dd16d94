"""Collectives whose arithmetic is ours: ranks only move data, every rank adds in the tree's order."""

from __future__ import annotations

import torch
import torch.distributed as dist

from rlsync.kernels import ops, order


def all_gather(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[...] on each of n ranks -> [n, ...], in rank order."""
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(group.size())]
    dist.all_gather(parts, x, group=group)
    return torch.stack(parts)


def tree_all_reduce(root: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Sum of the ranks' subtree roots, fp32, in the same tree as one rank would use."""
    return order.tree_sum(all_gather(root, group))


def finish_across(
    root: torch.Tensor,
    group: dist.ProcessGroup,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    *,
    share_memory: bool = True,
) -> torch.Tensor:
    """round(tree of the ranks' roots + bias): root [..., N] fp32 on each rank -> [..., N] on all.

    Args:
        share_memory: GPUs of one host may read each other's memory. Without it NCCL gathers the roots; the same bits.
    """
    if root.is_cuda:
        return ops.gpu_backend(root).finish_across(root, group, bias, dtype, share_memory)
    return order.finish(tree_all_reduce(root, group), bias, dtype)


def gather_columns(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[T, C] on each of n ranks -> [T, n C]: the ranks' columns side by side."""
    return torch.cat(tuple(all_gather(x, group)), dim=-1)
