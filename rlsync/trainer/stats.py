"""What a trainer rank reports of a step."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlsync.parity.counts import ParityCounts


@dataclass(slots=True, kw_only=True)
class CriticStats:
    """What one trainer rank reports of the critic's step; sums are over the rank's own tokens, in every epoch."""

    tokens: int = 0
    """Of the loss."""
    loss: float = 0.0
    """The rank's share, summed over minibatches."""
    clipped: int = 0
    """Tokens whose gradient the clip cut off."""
    grad_norm: float = 0.0
    learning_rate: float = 0.0
    updates: int = 0
    updates_skipped: int = 0
    """Left out because a gradient was not finite."""


@dataclass(slots=True, kw_only=True)
class StepStats:
    """What one trainer rank reports of a training step; sums are over the rank's own tokens, in every epoch."""

    tokens: int = 0
    """Rows forwarded, prompt and response; a shared prefix counts once."""
    tokens_saved: int = 0
    """Rows that shared prefixes spared."""
    loss_tokens: int = 0
    loss: float = 0.0
    """The rank's share of the objective, summed over minibatches."""
    entropy_sum: float = 0.0
    kl_sum: float = 0.0
    """Of the KL in the loss."""
    clipped: int = 0
    truncated: int = 0
    """Tokens whose importance weight reached algorithm.tis_cap."""
    ratio_max: float = 1.0
    ratio_min: float = 1.0
    first_ratio_max: float = 1.0
    """In the first minibatch of the first epoch, which runs at the sampler's weights."""
    first_ratio_min: float = 1.0
    grad_norm: float = 0.0
    learning_rate: float = 0.0
    micro_batches: int = 0
    minibatches: int = 0
    updates: int = 0
    """Optimiser steps taken."""
    updates_skipped: int = 0
    """Optimiser steps left out because a gradient was not finite."""
    seconds: float = 0.0
    peak_gpu_gib: float = 0.0
    """Most memory that the rank's tensors have held on its GPU; 0 on a CPU."""
    parity: ParityCounts = field(default_factory=ParityCounts)
    critic: CriticStats | None = None
