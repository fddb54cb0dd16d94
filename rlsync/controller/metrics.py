"""Metrics of a step. Keys are the same in metrics.jsonl and wandb; docs/metrics.md explains each.

Only metrics under time/, perf/ and memory/ may differ between two equal runs.
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from rlsync.parity.counts import ParityCounts, merge
from rlsync.parity.measures import mismatch
from rlsync.samples import FinishReason, Sample
from rlsync.telemetry.metrics import Metrics, StepTimes
from rlsync.trainer.stats import StepStats


def reward_metrics(samples: list[Sample], rewards: torch.Tensor, silent_groups: int) -> Metrics:
    """Return statistics of the samples that have a reward, and of the groups.

    Args:
        samples: The samples, for the functions of a weighted sum.
        rewards: Scores before shaping, [P, G] float64; NaN if a sample has none.
        silent_groups: Number of groups without a signal.
    """
    given = rewards[~rewards.isnan()]
    return {
        "reward/mean": float(given.mean()),
        "reward/std": float(given.std(correction=0)),
        "reward/min": float(given.min()),
        "reward/max": float(given.max()),
        "reward/group_std_mean": float(_group_stds(rewards).mean()),
        "reward/groups_without_signal": silent_groups,
        "reward/groups": rewards.shape[0],
        "reward/samples": rewards.numel(),
        "reward/errors": int(rewards.isnan().sum()),
    } | _part_means(samples)


def _group_stds(rewards: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of the rewards in each of the P' groups that have any, [P, G] -> [P']."""
    whole = ~rewards.isnan().any(dim=1)
    torn = [group[~group.isnan()].std(correction=0) for group in rewards[~whole] if not group.isnan().all()]
    return torch.cat([rewards[whole].std(dim=1, correction=0), *(each[None] for each in torn)])


def _part_means(samples: list[Sample]) -> Metrics:
    """Return the mean score of each function of a weighted sum, over the samples that all functions scored."""
    whole = [sample.score.parts for sample in samples if sample.score.parts]
    names = whole[0].keys() if whole else ()
    return {f"reward/part/{name}": sum(parts[name] for parts in whole) / len(whole) for name in names}


def rollout_metrics(samples: list[Sample]) -> Metrics:
    """Return statistics of the responses' lengths."""
    rollouts = [sample.rollout for sample in samples]
    lengths = torch.tensor([r.num_sampled for r in rollouts], dtype=torch.float64)
    return {
        "response/length_mean": float(lengths.mean()),
        "response/length_max": float(lengths.max()),
        "response/truncated_share": sum(r.finish_reason is FinishReason.length for r in rollouts) / len(rollouts),
        "response/tokens": float(lengths.sum()),
    }


def episode_metrics(samples: list[Sample], drawn: list[Sample]) -> Metrics:
    """Return statistics of the episodes.

    Args:
        samples: The samples that the step trains on.
        drawn: All samples of the step, including those of dropped groups; failures are counted over these.
    """
    return {
        "rollout/turns_mean": sum(sample.episode.model_turns for sample in samples) / len(samples),
        "rollout/tool_calls_mean": sum(sample.episode.tool_calls for sample in samples) / len(samples),
        "environment/errors": sum(sample.episode.error is not None for sample in drawn),
    }


def train_metrics(ranks: list[StepStats]) -> Metrics:
    """Return metrics of the updates: sums of the ranks become means over tokens, and the loss one over minibatches."""
    tokens = max(1, sum(rank.loss_tokens for rank in ranks))
    rows, saved = sum(rank.tokens for rank in ranks), sum(rank.tokens_saved for rank in ranks)
    return {
        "train/loss": sum(rank.loss for rank in ranks) / max(1, ranks[0].minibatches),
        "train/entropy": sum(rank.entropy_sum for rank in ranks) / tokens,
        "train/kl_reference": sum(rank.kl_sum for rank in ranks) / tokens,
        "train/clip_fraction": sum(rank.clipped for rank in ranks) / tokens,
        "train/tis_truncated": sum(rank.truncated for rank in ranks) / tokens,
        "train/ratio_min": min(rank.ratio_min for rank in ranks),
        "train/ratio_max": max(rank.ratio_max for rank in ranks),
        "train/grad_norm": ranks[0].grad_norm,
        "train/learning_rate": ranks[0].learning_rate,
        "train/updates": ranks[0].updates,
        "train/updates_skipped": ranks[0].updates_skipped,
        "train/micro_batches": ranks[0].micro_batches,
        "train/rows": rows,
        "train/tokens": rows,  # the name of train/rows in earlier releases
        "train/rows_saved": saved / max(1, rows + saved),
        "memory/trainer_gpu_gib": max(rank.peak_gpu_gib for rank in ranks),
    }


def critic_metrics(ranks: list[StepStats]) -> Metrics:
    """Return metrics of the critic's updates, with means as in train_metrics; empty without a critic."""
    critics = [rank.critic for rank in ranks if rank.critic is not None]
    if not critics:
        return {}
    first = critics[0]
    return {
        "critic/loss": sum(critic.loss for critic in critics) / (first.updates + first.updates_skipped),
        "critic/clip_fraction": sum(critic.clipped for critic in critics) / sum(critic.tokens for critic in critics),
        "critic/grad_norm": first.grad_norm,
        "critic/learning_rate": first.learning_rate,
        "critic/lr": first.learning_rate,  # the name of critic/learning_rate in earlier releases
        "critic/updates_skipped": first.updates_skipped,
    }


def parity_metrics(ranks: list[StepStats], digests_different: int) -> tuple[Metrics, ParityCounts]:
    """Return the monitor's metrics, and the counts of all ranks.

    Args:
        ranks: Statistics of each rank.
        digests_different: Number of tensors whose digests differ.
    """
    counts = merge([rank.parity for rank in ranks])
    return {
        "parity/tokens_sampled": counts.tokens_sampled,
        "parity/tokens_compared": counts.tokens_compared,
        "parity/tokens_left_out_stale": counts.tokens_left_out_stale,
        "parity/tokens_left_out_updated": counts.tokens_left_out_updated,
        "parity/share_compared": counts.share_compared,
        "parity/tokens_different": counts.tokens_different,
        "parity/max_abs_diff": counts.max_abs_diff,
        "parity/max_ulp": counts.max_ulp,
        "parity/rows_compared": counts.rows_compared,
        "parity/rows_different": counts.rows_different,
        "parity/first_position": counts.first.position if counts.first else -1,
        "parity/nonfinite": counts.nonfinite,
        "parity/draws_compared": counts.draws_compared,
        "parity/draws_different": counts.draws_different,
        "parity/weights_digest_equal": int(digests_different == 0),
    } | {f"parity/{name}": value for name, value in asdict(mismatch(counts.mismatch)).items()}, counts


def time_metrics(times: StepTimes, response_tokens: float, train_tokens: float) -> Metrics:
    """Return the seconds of each stage, and the throughput of rollout and training.

    Args:
        times: Seconds of each stage.
        response_tokens: Number of sampled tokens.
        train_tokens: Number of rows of the forward passes in training.
    """
    return {
        "perf/rollout_tokens_per_s": response_tokens / max(times.seconds["rollout"], 1e-9),
        "perf/train_tokens_per_s": train_tokens / max(times.seconds["train"], 1e-9),
    } | {f"time/{stage}": seconds for stage, seconds in times.seconds.items()}
