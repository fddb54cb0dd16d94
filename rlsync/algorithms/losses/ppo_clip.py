"""PPO's clipped surrogate, token by token."""

from __future__ import annotations

import torch

from rlsync.algorithms.losses.base import PolicyLoss, log_ratio, make_loss
from rlsync.config.algorithm import AlgorithmConfig
from rlsync.pack import Pack


def clipped_surrogate(
    ratio: torch.Tensor, advantages: torch.Tensor, config: AlgorithmConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped surrogate max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)) (PPO, arXiv 1707.06347, eq. 7).

    Args:
        ratio: [N], importance ratios r.
        advantages: [N], advantages A.
        config: the bounds of the clip.

    Returns:
        The loss [N], and a bool [N] that is True where the clipped term is the larger one.
    """
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    return torch.maximum(free, bounded), bounded > free


def ppo_clip(logprobs: torch.Tensor, old_logprobs: torch.Tensor, pack: Pack, config: AlgorithmConfig) -> PolicyLoss:
    """PPO with separate lower and upper bounds of the clip.

    With dual_clip = c (arXiv 1912.09729), the loss of a token with A < 0 is at most -A c.

    Args:
        logprobs: [N], log-probs of the policy.
        old_logprobs: [N], log-probs at the weights that sampled.
        pack: the items' advantages and which of them are trained on.
        config: the bounds.
    """
    ratio = torch.exp(log_ratio(logprobs, old_logprobs, pack.trained))
    loss, cut = clipped_surrogate(ratio, pack.advantages, config)
    if config.dual_clip:
        beyond = (pack.advantages < 0) & (ratio > config.dual_clip)
        loss = torch.where(beyond, -pack.advantages * config.dual_clip, loss)
        cut = cut | beyond
    return make_loss(loss, cut, ratio, pack.trained)
