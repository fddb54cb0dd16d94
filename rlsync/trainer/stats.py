"""The statistics that a trainer rank reports for a step."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlsync.parity.counts import ParityCounts


@dataclass(slots=True, kw_only=True)
class CriticStats:
    """Statistics of one rank's critic step. Sums run over the rank's own tokens in all epochs."""

    tokens: int = 0
    """Number of tokens in the loss."""
    loss: float = 0.0
    """The rank's share of the loss, summed over minibatches."""
    clipped: int = 0
    """Number of tokens whose gradient is 0 because the value was clipped."""
    grad_norm: float = 0.0
    """Norm of the gradients of the last update, before clipping."""
    learning_rate: float = 0.0
    """Learning rate of the last update."""
    updates: int = 0
    """Number of optimizer steps."""
    updates_skipped: int = 0
    """Number of optimizer steps that were skipped because a gradient was not finite."""


@dataclass(slots=True, kw_only=True)
class StepStats:
    """Statistics of one rank's training step. Sums run over the rank's own tokens in all epochs."""

    tokens: int = 0
    """Number of rows forwarded, of prompts and responses; a shared prefix counts once."""
    tokens_saved: int = 0
    """Number of rows that shared prefixes saved."""
    loss_tokens: int = 0
    """Number of tokens in the loss."""
    loss: float = 0.0
    """The rank's share of the objective, summed over minibatches."""
    entropy_sum: float = 0.0
    """Sum of the entropies, in nats."""
    kl_sum: float = 0.0
    """Sum of the KL estimates in the loss."""
    clipped: int = 0
    """Number of tokens whose gradient the clip of the policy loss cut off or bounded."""
    truncated: int = 0
    """Number of tokens whose importance weight exceeded algorithm.tis_cap."""
    ratio_max: float = 1.0
    """Largest importance ratio."""
    ratio_min: float = 1.0
    """Smallest importance ratio."""
    first_ratio_max: float = 1.0
    """Largest importance ratio of the first minibatch of the first epoch, which runs at the weights that sampled."""
    first_ratio_min: float = 1.0
    """Smallest importance ratio of that minibatch."""
    grad_norm: float = 0.0
    """Norm of the gradients of the last update, before clipping."""
    learning_rate: float = 0.0
    """Learning rate of the last update."""
    micro_batches: int = 0
    """Number of packs in all passes, without the extra pass before the first update."""
    minibatches: int = 0
    """Number of minibatches in all epochs."""
    updates: int = 0
    """Number of optimizer steps."""
    updates_skipped: int = 0
    """Number of optimizer steps that were skipped because a gradient was not finite."""
    seconds: float = 0.0
    """Duration of the step on this rank."""
    peak_gpu_gib: float = 0.0
    """Peak memory of the rank's tensors on its GPU so far, in GiB; 0 on a CPU."""
    parity: ParityCounts = field(default_factory=ParityCounts)
    """Results of the monitor."""
    critic: CriticStats | None = None
    """Statistics of the critic's step; None without a critic."""
