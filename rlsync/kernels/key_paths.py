"""The keys to which the rows of a prefix tree attend."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(slots=True, kw_only=True)
class KeyPaths:
    """The paths of a prefix tree's segments: the rows from the root to each segment's own last row, in order.

    Shapes: G segments, P keys of the longest path.
    """

    table: torch.Tensor
    """[G, P] int32: the rows of each path; 0 beyond the end of a path."""
    lengths: torch.Tensor
    """[G] int64: number of keys of each path, including those of the segment itself."""
    chunks: list[PathChunk]
    """All segments in order, divided into the chunks that the backward pass on a GPU handles at a time."""

    def to(self, device: torch.device) -> KeyPaths:
        """A copy with all tensors on `device`."""
        return replace(self, table=self.table.to(device), lengths=self.lengths.to(device))


@dataclass(slots=True, kw_only=True)
class PathChunk:
    """Consecutive segments. The numbers are known on the host, so the backward pass need not wait for the GPU."""

    segments: slice
    """The segments."""
    rows: slice
    """The pack's rows that belong to these segments."""
    keys: int
    """Number of keys of all their paths together."""
