"""Advantages from rewards. Every function: rewards [P, G] float64 of G responses to P prompts -> [P, G] float64.

A reward that is NaN is missing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rlsync.config.algorithm import AdvantageKind, AlgorithmConfig

_EPS = 1e-6


def compute_advantages(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """[P, G] -> [P, G], by `config.advantage`.

    NaN marks a sample without a reward. It enters no mean and no standard deviation, and its own advantage is 0.
    """
    return torch.where(rewards.isnan(), 0.0, _KINDS[config.advantage](rewards, config))


def grpo(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """GRPO (arXiv 2402.03300, section 4.1.2): (r - mean of its group) / (std of its group + 1e-6).

    Without normalize_std, Dr. GRPO (arXiv 2503.20783): r - mean. A group of equal rewards gives exactly 0.
    """
    centred = _less_group_mean(rewards)
    if not config.normalize_std:
        return centred
    return centred / (_of_groups(torch.std, rewards).nan_to_num() + _EPS)


def rloo(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """RLOO (arXiv 2402.14740): r - mean of the group's other G - 1 rewards = (r - mean) G / (G - 1).

    G counts the samples that have a reward. A group of equal rewards gives exactly 0.
    """
    size = (~rewards.isnan()).sum(dim=1, keepdim=True).to(rewards.dtype)
    return _less_group_mean(rewards) * (size / (size - 1).clamp_min(1))


def reinforce_pp(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """REINFORCE++ (arXiv 2501.03262): (r - mean) / (std + 1e-6), both over the step's P G samples; groups don't matter.

    The paper subtracts from token t the KL of the tokens from t on and takes mean and std over tokens. Here the KL of
    the whole response is a part of r, and mean and std are over samples. A batch of equal rewards gives exactly 0.
    """
    given = _given(rewards)
    if _groups_of_equals(given[None]):
        return torch.zeros_like(rewards)
    return (rewards - given.mean()) / (given.std() + _EPS)


def reinforce_pp_baseline(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """REINFORCE++ with baseline (arXiv 2501.03262): a = r - mean of its group, then a / (std of a in the batch + 1e-6).

    The batch mean of a is 0, so it is not subtracted: a group of equal rewards gives exactly 0.
    """
    centred = _less_group_mean(rewards)
    given = _given(centred)
    return centred / (given.std() + _EPS) if given.numel() > 1 else centred


_KINDS: dict[AdvantageKind, Callable[[torch.Tensor, AlgorithmConfig], torch.Tensor]] = {
    AdvantageKind.grpo: grpo,
    AdvantageKind.rloo: rloo,
    AdvantageKind.reinforce_pp: reinforce_pp,
    AdvantageKind.reinforce_pp_baseline: reinforce_pp_baseline,
}


def groups_without_signal(rewards: torch.Tensor) -> int:
    """Groups [P, G] whose given rewards are all equal, so that they teach nothing to a group-relative advantage."""
    return int(_groups_of_equals(rewards).sum())


def _less_group_mean(rewards: torch.Tensor) -> torch.Tensor:
    """r - mean of its group; exactly 0 where all are equal, although the mean may be rounded."""
    means = _of_groups(torch.mean, rewards)
    return (rewards - means).masked_fill(_groups_of_equals(rewards) & ~rewards.isnan(), 0.0)


def _of_groups(statistic: Callable[..., torch.Tensor], rewards: torch.Tensor) -> torch.Tensor:
    """A statistic of the rewards that each group has, [P, G] -> [P, 1]; NaN where a group has fewer than two."""
    values = statistic(rewards, dim=1, keepdim=True)
    for index in rewards.isnan().any(dim=1).nonzero()[:, 0].tolist():
        given = _given(rewards[index])
        if given.numel() > 1:
            values[index] = statistic(given, dim=0)
    return values


def _given(rewards: torch.Tensor) -> torch.Tensor:
    """[...] -> [N]: those that are not missing."""
    return rewards[~rewards.isnan()]


def _groups_of_equals(rewards: torch.Tensor) -> torch.Tensor:
    """[P, G] -> [P, 1] bool: whether a group's given rewards are all equal, as those of an empty group are."""
    highest = rewards.nan_to_num(nan=-torch.inf).amax(dim=1, keepdim=True)
    lowest = rewards.nan_to_num(nan=torch.inf).amin(dim=1, keepdim=True)
    return highest <= lowest
