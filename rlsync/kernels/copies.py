"""Many copies of parts of matrices, prepared once and made again and again; in one launch on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from rlsync.kernels import ops


class Copies:
    """Each second of a pair into the first, rounded to its dtype.

    Args:
        pairs: of equal shapes [r, c] or [n], bf16 or fp32, dense in their last dimension, all on one device.
    """

    def __init__(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._pairs = list(pairs)
        """Kept, as the launches know addresses alone."""
        on_gpu = bool(pairs) and pairs[0][0].is_cuda
        self._launches = (
            ops.gpu_backend(pairs[0][0]).copy_launches(pairs)
            if on_gpu
            else [partial(into.copy_, values) for into, values in pairs]
        )

    def run(self) -> None:
        for launch in self._launches:
            launch()
