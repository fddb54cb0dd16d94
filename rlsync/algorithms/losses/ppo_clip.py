"""PPO's clipped surrogate, token by token."""

from __future__ import annotations

import torch

from rlsync.algorithms.losses.base import PolicyLoss, log_ratio, make_loss
from rlsync.config.algorithm import AlgorithmConfig
from rlsync.pack import Pack


def clipped_surrogate(
    ratio: torch.Tensor, advantages: torch.Tensor, config: AlgorithmConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)) (arXiv 1707.06347, eq. 7), and where the clip won. All [N]."""
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    return torch.maximum(free, bounded), bounded > free


def ppo_clip(logprobs: torch.Tensor, old_logprobs: torch.Tensor, pack: Pack, config: AlgorithmConfig) -> PolicyLoss:
    """PPO with separate bounds, and with dual_clip c (arXiv 1912.09729) at most -A c where A < 0.

    Args:
        logprobs, old_logprobs: [N] of the policy, and at the sampler's weights.
    """
    ratio = torch.exp(log_ratio(logprobs, old_logprobs, pack.trained))
    loss, cut = clipped_surrogate(ratio, pack.advantages, config)
    if config.dual_clip:
        beyond = (pack.advantages < 0) & (ratio > config.dual_clip)
        loss = torch.where(beyond, -pack.advantages * config.dual_clip, loss)
        cut = cut | beyond
    return make_loss(loss, cut, ratio, pack.trained)
