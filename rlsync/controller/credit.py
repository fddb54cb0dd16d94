"""Compute advantages from rewards and, with a critic, its targets."""

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
    """Set each sample's `advantage` and, with a critic, its `value`.

    Without a critic all tokens of a response have the same advantage, computed from the sums of the responses' rewards.
    With a critic each token has its own.

    Args:
        samples: Samples with their rewards, group after group.
        algorithm: Which advantage to compute.
        values: Returns each rollout's values, [T] float32; called only with a critic.

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
    """Compute GAE over the sampled tokens of each response, skipping the tokens of an environment.

    Samples without a reward get zeros, and are left out of statistics and whitening.
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
    """Place values [N] of the sampled tokens in a tensor [T] float32 that is 0 elsewhere."""
    return torch.zeros(rollout.tokens.numel()).masked_scatter(rollout.sampled, values.float())
