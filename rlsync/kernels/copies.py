"""Many copies between parts of matrices, prepared once and run repeatedly; a GPU runs them in a few launches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from rlsync.kernels import ops


class Copies:
    """Copies of the second tensor of each pair into the first, rounded to its dtype.

    Args:
        pairs: pairs of tensors of equal shapes, [r, c] or [n], bf16 or fp32, dense in their last dimension, and all on
            one device.
    """

    def __init__(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._pairs = list(pairs)
        """Keeps the tensors alive, because the launches hold only their addresses."""
        on_gpu = bool(pairs) and pairs[0][0].is_cuda
        self._launches = (
            ops.gpu_backend(pairs[0][0]).copy_launches(pairs)
            if on_gpu
            else [partial(into.copy_, values) for into, values in pairs]
        )

    def run(self) -> None:
        """Run all copies."""
        for launch in self._launches:
            launch()
