"""Sums and means of items' values over the sequences of a pack."""

from __future__ import annotations

import torch

from rlsync.pack import Pack


def sequence_sums(values: torch.Tensor, pack: Pack) -> torch.Tensor:
    """Sums of the items' values [N] over each sequence: [S] in the same dtype, differentiable."""
    return values.new_zeros(pack.sequence_ids.numel()).index_add(0, pack.sequences, values)


def sequence_means(values: torch.Tensor, pack: Pack) -> torch.Tensor:
    """Means [S] over each sequence's trained items; 0 if it has none. `values` [N] must be 0 at the other items."""
    counts = sequence_sums(pack.trained.to(values.dtype), pack)
    return sequence_sums(values, pack) / counts.clamp_min(1)
