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
    root: torch.Tensor, group: dist.ProcessGroup, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """round(tree of the ranks' roots + bias): root [..., N] fp32 on each rank -> [..., N] on all."""
    if root.is_cuda:
        return ops.backend(root).finish_across(root, group, bias, dtype)
    return order.finish(tree_all_reduce(root, group), bias, dtype)


def gather_columns(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[T, C] on each of n ranks -> [T, n C]: the ranks' columns side by side."""
    return torch.cat(tuple(all_gather(x, group)), dim=-1)


def share(count: int, ranks: int, rank: int) -> tuple[int, int]:
    """First row and the one after the last that `rank` takes of `count` rows: as many each, but at the end."""
    size = -(-count // ranks)
    return min(rank * size, count), min((rank + 1) * size, count)


def share_rows(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[T, C], columns of each of n ranks -> [own, n C]: this rank's share of the rows, with the columns of all."""
    shares = [share(len(x), group.size(), rank) for rank in range(group.size())]
    sizes = [end - begin for begin, end in shares]
    own = sizes[group.rank()]
    parts = x.new_empty(group.size() * own, x.shape[1])
    dist.all_to_all_single(parts, x.contiguous(), [own] * group.size(), sizes, group=group)
    return parts.view(group.size(), own, x.shape[1]).transpose(0, 1).reshape(own, group.size() * x.shape[1])


def gather_shares(x: torch.Tensor, count: int, group: dist.ProcessGroup) -> torch.Tensor:
    """[own, ...], a share of `count` rows, on each rank -> [count, ...] on all."""
    size = -(-count // group.size())
    padded = x.new_zeros(size, *x.shape[1:])
    padded[: len(x)] = x
    everyone = x.new_empty(group.size() * size, *x.shape[1:])
    dist.all_gather_into_tensor(everyone, padded, group=group)
    return everyone[:count]
