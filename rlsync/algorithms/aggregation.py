"""Aggregation of token losses: a weight for each token, and a denominator for the whole minibatch.

A weight depends on the token's own sequence only, and the denominator on the minibatch over all ranks. The gradient
therefore does not depend on the division into micro-batches and ranks.
"""

from __future__ import annotations

import torch

from rlsync.algorithms.segment_reduce import sequence_sums
from rlsync.config.algorithm import Aggregation
from rlsync.pack import MinibatchSize, Pack


def token_weights(pack: Pack, aggregation: Aggregation, dtype: torch.dtype) -> torch.Tensor:
    """The weights of a pack's items.

    Returns:
        [N] in `dtype`: for items that are trained on, 1, or with `sequence_mean` 1 / (trained items of the sequence);
        0 for other items.
    """
    ones = pack.trained.to(dtype)
    if aggregation is not Aggregation.sequence_mean:
        return ones
    counts = sequence_sums(ones, pack).clamp_min(1)
    return ones / counts.index_select(0, pack.sequences)


def denominator(size: MinibatchSize, aggregation: Aggregation, max_tokens: int) -> int:
    """The number by which the weighted sum over all ranks is divided.

    Args:
        size: size of the minibatch over all ranks.
        aggregation: how token losses are aggregated.
        max_tokens: largest number of tokens of a response.
    """
    match aggregation:
        case Aggregation.token_mean:
            return max(1, size.tokens)
        case Aggregation.sequence_mean:
            return max(1, size.sequences)
        case Aggregation.fixed_length:
            return max(1, size.sequences * max_tokens)
