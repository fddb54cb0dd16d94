"""From token losses to one number: a weight for every token, over a denominator of the whole minibatch.

Weights know a token's own sequence alone, and denominators the minibatch over all ranks; so neither micro-batches nor
ranks change the gradient.
"""

from __future__ import annotations

import torch

from rlsync.algorithms.segment_reduce import sequence_sums
from rlsync.config.algorithm import Aggregation
from rlsync.pack import MinibatchSize, Pack


def token_weights(pack: Pack, aggregation: Aggregation, dtype: torch.dtype) -> torch.Tensor:
    """[N] in `dtype`: 1 where trained, for `sequence_mean` 1 / trained tokens of the sequence; 0 elsewhere."""
    ones = pack.trained.to(dtype)
    if aggregation is not Aggregation.sequence_mean:
        return ones
    counts = sequence_sums(ones, pack).clamp_min(1)
    return ones / counts.index_select(0, pack.sequences)


def denominator(size: MinibatchSize, aggregation: Aggregation, max_tokens: int) -> int:
    """What the weighted sum over all ranks is divided by; max_tokens is the longest response that may be."""
    match aggregation:
        case Aggregation.token_mean:
            return max(1, size.tokens)
        case Aggregation.sequence_mean:
            return max(1, size.sequences)
        case Aggregation.fixed_length:
            return max(1, size.sequences * max_tokens)
