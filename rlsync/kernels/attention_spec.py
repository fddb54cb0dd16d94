"""The keys to which the rows of a pack attend."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlsync.kernels.key_paths import KeyPaths


@dataclass(slots=True, kw_only=True, frozen=True)
class AttentionSpec:
    """Describes attention within a pack: G segments of rows, each causal, without a view of the others.

    In a plain pack each sequence is one segment. In a prefix tree a segment also attends to the segments on its path to
    the root.
    """

    starts: torch.Tensor
    """[G + 1] integer offsets of the segments."""
    scale: float
    """Factor of the scores q k^T."""
    window: int = 0
    """Number of keys that a query sees, itself included (q - k < window); 0 for all."""
    paths: KeyPaths | None = None
    """The keys that each segment of a prefix tree reads; None in a plain pack."""
    longest: int | None = None
    """Number of rows of the longest segment. If the caller knows it, the backward pass need not wait for the GPU."""
