"""Sums over the sequences of a pack, of values of its items."""

from __future__ import annotations

import torch

from rlsync.pack import Pack


def sequence_sums(values: torch.Tensor, pack: Pack) -> torch.Tensor:
    """Sums of an item-wise [N] over each sequence -> [S], same dtype; differentiable, in the items' order."""
    return values.new_zeros(pack.sequence_ids.numel()).index_add(0, pack.sequences, values)


def sequence_means(values: torch.Tensor, pack: Pack) -> torch.Tensor:
    """Means over each sequence's trained items -> [S]; 0 where there are none. `values` are 0 at the other items."""
    counts = sequence_sums(pack.trained.to(values.dtype), pack)
    return sequence_sums(values, pack) / counts.clamp_min(1)
