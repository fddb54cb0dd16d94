"""GSPO: the clipped surrogate with one importance ratio for each sequence."""

from __future__ import annotations

import torch

from rlsync.algorithms.losses.base import PolicyLoss, log_ratio, make_loss
from rlsync.algorithms.losses.ppo_clip import clipped_surrogate
from rlsync.algorithms.segment_reduce import sequence_means
from rlsync.config.algorithm import AlgorithmConfig
from rlsync.pack import Pack


def gspo(logprobs: torch.Tensor, old_logprobs: torch.Tensor, pack: Pack, config: AlgorithmConfig) -> PolicyLoss:
    """GSPO (arXiv 2507.18071, eq. 5 and 7): PPO's surrogate of s = exp(mean of the log-ratios of a sequence's tokens).

    Every token of a sequence gets the loss of the sequence, so that aggregation=sequence_mean gives the paper's sum.
    The statistics are those of s. Arguments are as in `ppo_clip`.
    """
    means = sequence_means(log_ratio(logprobs, old_logprobs, pack.trained), pack)
    ratio = torch.exp(means).index_select(0, pack.sequences)
    loss, cut = clipped_surrogate(ratio, pack.advantages, config)
    return make_loss(loss, cut, ratio, pack.trained)
