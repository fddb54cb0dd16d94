"""Advantages from rewards. Every function: rewards [P, G] float64 of G responses to P prompts -> [P, G] float64."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rlsync.config.algorithm import AdvantageKind, AlgorithmConfig

_EPS = 1e-6


def compute_advantages(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """[P, G] -> [P, G], by `config.advantage`."""
    return _KINDS[config.advantage](rewards, config)


def grpo(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """GRPO (arXiv 2402.03300, section 4.1.2): (r - mean of its group) / (std of its group + 1e-6).

    Without normalize_std, Dr. GRPO (arXiv 2503.20783): r - mean. A group of equal rewards gives exactly 0.
    """
    centred = _less_group_mean(rewards)
    return centred / (rewards.std(dim=1, keepdim=True) + _EPS) if config.normalize_std else centred


def rloo(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """RLOO (arXiv 2402.14740): r - mean of the group's other G - 1 rewards = (r - mean) G / (G - 1).

    A group of equal rewards gives exactly 0.
    """
    size = rewards.shape[1]
    return _less_group_mean(rewards) * (size / (size - 1))


def reinforce_pp(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """REINFORCE++ (arXiv 2501.03262): (r - mean) / (std + 1e-6), both over the step's P G samples; groups don't matter.

    The paper subtracts from token t the KL of the tokens from t on and takes mean and std over tokens. Here the KL of
    the whole response is a part of r, and mean and std are over samples. A batch of equal rewards gives exactly 0.
    """
    if _all_equal(rewards.flatten(), dim=0):
        return torch.zeros_like(rewards)
    return (rewards - rewards.mean()) / (rewards.std() + _EPS)


def reinforce_pp_baseline(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """REINFORCE++ with baseline (arXiv 2501.03262): a = r - mean of its group, then a / (std of a in the batch + 1e-6).

    The batch mean of a is 0 (groups have one size), so it is not subtracted: a group of equal rewards gives exactly 0.
    """
    centred = _less_group_mean(rewards)
    return centred / (centred.std() + _EPS)


_KINDS: dict[AdvantageKind, Callable[[torch.Tensor, AlgorithmConfig], torch.Tensor]] = {
    AdvantageKind.grpo: grpo,
    AdvantageKind.rloo: rloo,
    AdvantageKind.reinforce_pp: reinforce_pp,
    AdvantageKind.reinforce_pp_baseline: reinforce_pp_baseline,
}


def groups_without_signal(rewards: torch.Tensor) -> int:
    """Groups [P, G] whose rewards are all equal, so that they teach nothing to a group-relative advantage."""
    return int(_all_equal(rewards, dim=1).sum())


def _less_group_mean(rewards: torch.Tensor) -> torch.Tensor:
    """r - mean of its group; exactly 0 where all are equal, although the mean may be rounded."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred.masked_fill(_all_equal(rewards, dim=1)[:, None], 0.0)


def _all_equal(rewards: torch.Tensor, dim: int) -> torch.Tensor:
    return rewards.amax(dim=dim) == rewards.amin(dim=dim)
