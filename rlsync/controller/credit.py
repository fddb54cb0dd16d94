"""From token rewards to what a step trains on: advantages, and with a critic its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from rlsync.algorithms.advantages import compute_advantages
from rlsync.algorithms.gae import explained_variance, gae, whiten
from rlsync.config.algorithm import AlgorithmConfig
from rlsync.samples import Rollout, TrainSample, ValueTarget
from rlsync.telemetry.metrics import Metrics


@dataclass(slots=True, kw_only=True)
class Credit:
    samples: list[TrainSample]
    metrics: Metrics
    """Of the critic before the step; empty without one."""


def assign_credit(
    rollouts: list[Rollout],
    rewards: list[torch.Tensor],
    algorithm: AlgorithmConfig,
    values: Callable[[list[Rollout]], list[torch.Tensor]],
) -> Credit:
    """One advantage for a response from its group's summed rewards, or one for each token from a critic's values.

    A rollout without a reward becomes a sample that is not trained on, by the policy or by the critic.

    Args:
        rollouts: group after group.
        rewards: of each rollout, [T] float64, 0 where not sampled; NaN at the last sampled token where there is none.
        values: each rollout's [T] float32 values, asked for with a critic alone.
    """
    if algorithm.has_critic:
        return _from_critic(rollouts, rewards, algorithm, values(rollouts))
    sums = torch.stack([each.sum() for each in rewards])
    advantages = compute_advantages(sums.view(-1, algorithm.group_size), algorithm).flatten().tolist()
    parts = zip(rollouts, advantages, sums.isfinite().tolist(), strict=True)
    return Credit(samples=[TrainSample(rollout=r, advantage=a, trained=given) for r, a, given in parts], metrics={})


def _from_critic(
    rollouts: list[Rollout], rewards: list[torch.Tensor], algorithm: AlgorithmConfig, values: list[torch.Tensor]
) -> Credit:
    """GAE for the rollouts that have a reward; statistics and whitening know no others."""
    given = [index for index, reward in enumerate(rewards) if reward.isfinite().all()]
    credit = _of_tokens(
        [rollouts[i] for i in given], [rewards[i] for i in given], algorithm, [values[i] for i in given]
    )
    scored = dict(zip(given, credit.samples, strict=True))
    samples = [scored.get(index) or _untrained(rollout) for index, rollout in enumerate(rollouts)]
    return Credit(samples=samples, metrics=credit.metrics)


def _untrained(rollout: Rollout) -> TrainSample:
    nothing = torch.zeros(rollout.tokens.numel())
    return TrainSample(
        rollout=rollout, advantage=nothing, value=ValueTarget(old=nothing, returns=nothing), trained=False
    )


def _of_tokens(
    rollouts: list[Rollout], rewards: list[torch.Tensor], algorithm: AlgorithmConfig, values: list[torch.Tensor]
) -> Credit:
    """GAE over each rollout's sampled tokens, as if those of the environment were not there."""
    lengths = [rollout.num_sampled for rollout in rollouts]
    old = [value[r.sampled].double() for r, value in zip(rollouts, values, strict=True)]
    got = [reward[r.sampled] for r, reward in zip(rollouts, rewards, strict=True)]
    padded = gae(
        pad_sequence(got, batch_first=True), pad_sequence(old, batch_first=True),
        gamma=algorithm.gamma, gae_lambda=algorithm.gae_lambda,
    )  # fmt: skip
    advantages = torch.cat([row[:n] for row, n in zip(padded, lengths, strict=True)])
    before = torch.cat(old)
    returns = advantages + before
    trained = whiten(advantages) if algorithm.whiten else advantages
    parts = zip(rollouts, trained.split(lengths), before.split(lengths), returns.split(lengths), strict=True)
    return Credit(
        samples=[
            TrainSample(
                rollout=rollout,
                advantage=_at_tokens(rollout, advantage),
                value=ValueTarget(old=_at_tokens(rollout, value), returns=_at_tokens(rollout, target)),
            )
            for rollout, advantage, value, target in parts
        ],
        metrics={
            "critic/value_mean": float(before.mean()),
            "critic/explained_variance": explained_variance(before, returns),
        },
    )


def _at_tokens(rollout: Rollout, values: torch.Tensor) -> torch.Tensor:
    """[N] of the sampled tokens -> [T] float32, 0 elsewhere."""
    return torch.zeros(rollout.tokens.numel()).masked_scatter(rollout.sampled, values.float())
