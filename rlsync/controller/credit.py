"""From token rewards to what a step trains on: advantages, and with a critic its targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.utils.rnn import pad_sequence

from rlsync.algorithms.advantages import compute_advantages
from rlsync.algorithms.gae import explained_variance, gae, whiten
from rlsync.config.algorithm import AlgorithmConfig
from rlsync.samples import Rollout, Sample, ValueTarget
from rlsync.telemetry.metrics import Metrics


def assign_credit(
    samples: list[Sample], algorithm: AlgorithmConfig, values: Callable[[list[Rollout]], list[torch.Tensor]]
) -> Metrics:
    """Give each sample its `advantage`, and its `value` where there is a critic.

    Group methods give all tokens of a response one advantage, from the group's summed rewards; a critic's values give
    each token its own.

    Args:
        samples: group after group, with their rewards.
        values: gives each rollout's values, [T] float32; called only with a critic.
    Returns:
        Metrics of the critic before the step; empty without one.
    """
    if algorithm.has_critic:
        return _from_critic(samples, algorithm, values([sample.rollout for sample in samples]))
    sums = torch.stack([_reward(sample).sum() for sample in samples])
    advantages = compute_advantages(sums.view(-1, algorithm.group_size), algorithm).flatten()
    for sample, advantage in zip(samples, advantages, strict=True):
        sample.advantage = torch.where(sample.rollout.sampled, advantage, 0.0)
    return {}


def _from_critic(samples: list[Sample], algorithm: AlgorithmConfig, values: list[torch.Tensor]) -> Metrics:
    """GAE over the sampled tokens of each response, as if the environment's were not there.

    Samples without a reward enter no statistic and no whitening, and get zeros.
    """
    for sample in samples:
        nothing = torch.zeros(sample.rollout.tokens.numel())
        sample.advantage, sample.value = nothing, ValueTarget(old=nothing, returns=nothing)
    scored = [(sample, value) for sample, value in zip(samples, values, strict=True) if sample.trained]
    lengths = [sample.rollout.num_sampled for sample, _ in scored]
    old = [value[sample.rollout.sampled].double() for sample, value in scored]
    rewards = [_reward(sample)[sample.rollout.sampled] for sample, _ in scored]
    padded = gae(
        pad_sequence(rewards, batch_first=True), pad_sequence(old, batch_first=True),
        gamma=algorithm.gamma, gae_lambda=algorithm.gae_lambda,
    )  # fmt: skip
    advantages = torch.cat([row[:n] for row, n in zip(padded, lengths, strict=True)])
    before = torch.cat(old)
    returns = advantages + before
    trained = whiten(advantages) if algorithm.whiten else advantages
    parts = zip(scored, trained.split(lengths), before.split(lengths), returns.split(lengths), strict=True)
    for (sample, _), advantage, value, target in parts:
        rollout = sample.rollout
        sample.advantage = _at_tokens(rollout, advantage)
        sample.value = ValueTarget(old=_at_tokens(rollout, value), returns=_at_tokens(rollout, target))
    return {
        "critic/value_mean": float(before.mean()),
        "critic/explained_variance": explained_variance(before, returns),
    }


def _reward(sample: Sample) -> torch.Tensor:
    assert sample.reward is not None, "credit is assigned after the rewards are shaped"
    return sample.reward


def _at_tokens(rollout: Rollout, values: torch.Tensor) -> torch.Tensor:
    """[N] of the sampled tokens -> [T] float32, 0 elsewhere."""
    return torch.zeros(rollout.tokens.numel()).masked_scatter(rollout.sampled, values.float())
