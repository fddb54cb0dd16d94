"""CISPO: policy gradient with a clipped importance weight."""

from __future__ import annotations

import torch

from rlsync.algorithms.losses.base import PolicyLoss, log_ratio, make_loss
from rlsync.config.algorithm import AlgorithmConfig
from rlsync.pack import Pack


def cispo(logprobs: torch.Tensor, old_logprobs: torch.Tensor, pack: Pack, config: AlgorithmConfig) -> PolicyLoss:
    """CISPO (arXiv 2506.13585, eq. 4 and 5): -stop_gradient(clip(r, 1 - clip_low, 1 + clip_high)) A log-prob.

    No token loses its gradient; `clipped` counts the tokens whose weight is bounded. Arguments are as in `ppo_clip`.
    """
    ratio = torch.exp(log_ratio(logprobs, old_logprobs, pack.trained)).detach()
    weight = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    return make_loss(-weight * pack.advantages * logprobs, weight != ratio, ratio, pack.trained)
