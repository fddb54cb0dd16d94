"""Advantages from rewards."""

from __future__ import annotations

import torch

from rlsync.config.algorithm import AlgorithmConfig

_EPS = 1e-6


def group_advantages(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """GRPO (arXiv 2402.03300, eq. 4): (r - mean of its group) / (std of its group + 1e-6).

    Args:
        rewards: [P, G] float64, G responses to each of P prompts.
    Returns:
        [P, G] float64; a group whose rewards are all equal gives exactly 0.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    equal = rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, keepdim=True)
    centred = centred.masked_fill(equal, 0.0)
    if not config.normalize_std:
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + _EPS)


def groups_without_signal(rewards: torch.Tensor) -> int:
    """Groups [P, G] whose rewards are all equal, so that they teach nothing."""
    return int((rewards.amax(dim=1) == rewards.amin(dim=1)).sum())
