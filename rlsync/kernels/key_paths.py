"""What the rows of a prefix tree attend to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(slots=True, kw_only=True)
class KeyPaths:
    """What the segments of a prefix tree attend to: the rows from the tree's root to their own last, by position.

    G segments, P keys of the longest path.
    """

    table: torch.Tensor
    """[G, P] int32: rows of the pack; 0 beyond a path's end."""
    lengths: torch.Tensor
    """[G] int64: keys of each path, those of the segment itself included."""
    chunks: list[PathChunk]
    """All segments, in order: what the backward on a GPU takes at a time."""

    def to(self, device: torch.device) -> KeyPaths:
        """A copy with all tensors on `device`."""
        return replace(self, table=self.table.to(device), lengths=self.lengths.to(device))


@dataclass(slots=True, kw_only=True)
class PathChunk:
    """Consecutive segments, in numbers that the host knows."""

    segments: slice
    rows: slice
    """Of the pack: theirs."""
    keys: int
    """Of all their paths."""
