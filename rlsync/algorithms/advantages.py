"""Group-relative advantages: from rewards [P, G] float64 of G responses to P prompts to advantages [P, G] float64.

A reward that is NaN stands for a sample without a reward.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rlsync.config.algorithm import AdvantageKind, AlgorithmConfig

GROUP_RELATIVE = (AdvantageKind.grpo, AdvantageKind.rloo, AdvantageKind.reinforce_pp_baseline)
"""Estimators with which a group of equal rewards trains nothing."""
_EPS = 1e-6


def compute_advantages(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """Compute advantages with the estimator `config.advantage`.

    A sample without a reward enters no mean and no standard deviation, and its own advantage is 0.

    Args:
        rewards: [P, G] float64, NaN for samples without a reward.
        config: the estimator and its settings.

    Returns:
        [P, G] float64.
    """
    return torch.where(rewards.isnan(), 0.0, _KINDS[config.advantage](rewards, config))


def grpo(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:
    """GRPO (arXiv 2402.03300, section 4.1.2): (r - mean of its group) / (std of its group + 1e-6).

    Without normalize_std it is r - mean, as in Dr. GRPO (arXiv 2503.20783). A group of equal rewards gives exactly 0.
    """
    centred = _less_group_mean(rewards)
    if not config.normalize_std:
        return centred
    return centred / (_of_groups(torch.std, rewards).nan_to_num() + _EPS)


def rloo(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:  # noqa: ARG001 (one interface for all kinds)
    """RLOO (arXiv 2402.14740): r - mean of the group's other G - 1 rewards = (r - mean) G / (G - 1).

    Here G is the number of samples with a reward. A group of equal rewards gives exactly 0.
    """
    size = (~rewards.isnan()).sum(dim=1, keepdim=True).to(rewards.dtype)
    return _less_group_mean(rewards) * (size / (size - 1).clamp_min(1))


def reinforce_pp(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:  # noqa: ARG001
    """REINFORCE++ (arXiv 2501.03262): (r - mean) / (std + 1e-6), with mean and std over all P * G samples of the step.

    In the paper, the KL of token t and of all later tokens is subtracted at token t, and mean and std are taken over
    tokens. Here r contains the KL of the whole response if algorithm.kl_in=reward, and mean and std are taken over
    samples. Equal rewards in the whole step give exactly 0.
    """
    given = _given(rewards)
    if _groups_of_equals(given[None]):
        return torch.zeros_like(rewards)
    return (rewards - given.mean()) / (given.std() + _EPS)


def reinforce_pp_baseline(rewards: torch.Tensor, config: AlgorithmConfig) -> torch.Tensor:  # noqa: ARG001
    """REINFORCE++ with baseline (arXiv 2501.03262): a / (std of a over the step + 1e-6) with a = r - mean of its group.

    The mean of a over the step is 0 and is not subtracted, so a group of equal rewards gives exactly 0.
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
    """Number of groups without a signal: the rewards of a group in `rewards` [P, G], except NaN, are all equal."""
    return int(_groups_of_equals(rewards).sum())


def _less_group_mean(rewards: torch.Tensor) -> torch.Tensor:
    """Each reward minus the mean of its group; exactly 0 in a group of equal rewards, although its mean is rounded."""
    means = _of_groups(torch.mean, rewards)
    return (rewards - means).masked_fill(_groups_of_equals(rewards) & ~rewards.isnan(), 0.0)


def _of_groups(statistic: Callable[..., torch.Tensor], rewards: torch.Tensor) -> torch.Tensor:
    """A statistic of each group's rewards except NaN, [P, G] -> [P, 1]; NaN if fewer than two rewards are left."""
    values = statistic(rewards, dim=1, keepdim=True)
    for index in rewards.isnan().any(dim=1).nonzero()[:, 0].tolist():
        given = _given(rewards[index])
        if given.numel() > 1:
            values[index] = statistic(given, dim=0)
    return values


def _given(rewards: torch.Tensor) -> torch.Tensor:
    """The rewards [...] that are not NaN, as [N]."""
    return rewards[~rewards.isnan()]


def _groups_of_equals(rewards: torch.Tensor) -> torch.Tensor:
    """[P, 1] bool: whether the rewards of a group in [P, G], except NaN, are all equal; True for a group of NaN."""
    highest = rewards.nan_to_num(nan=-torch.inf).amax(dim=1, keepdim=True)
    lowest = rewards.nan_to_num(nan=torch.inf).amin(dim=1, keepdim=True)
    return highest <= lowest
