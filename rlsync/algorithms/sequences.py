"""Per-row and per-sequence values of a pack: sums over sequences, and back to rows."""

from __future__ import annotations

import torch


def sequence_of_rows(starts: torch.Tensor) -> torch.Tensor:
    """Offsets [S + 1] -> [T] int64: which sequence each row belongs to."""
    lengths = starts.diff()
    return torch.arange(lengths.numel(), device=starts.device).repeat_interleave(lengths)


def sequence_sums(values: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Sums of a row-wise [T] over each sequence -> [S], same dtype; differentiable, in the rows' order."""
    return values.new_zeros(starts.numel() - 1).index_add(0, sequence_of_rows(starts), values)


def sequence_means(values: torch.Tensor, mask: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Means over each sequence's rows in the mask -> [S]; 0 where there are none. `values` are 0 outside the mask."""
    counts = sequence_sums(mask.to(values.dtype), starts)
    return sequence_sums(values, starts) / counts.clamp_min(1)
