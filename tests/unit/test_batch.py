"""Samples without a reward in a batch: where they stand, and what they teach."""

import pytest
import torch

from rlsync.algorithms.advantages import compute_advantages
from rlsync.batch import Batch, Group
from rlsync.config.algorithm import AdvantageKind, AlgorithmConfig
from rlsync.telemetry.metrics import reward_metrics
from rlsync.types import Episode, FinishReason, Problem, Rollout, Score

NONE = Score(reward=None, error="x")


def _batch(*groups: tuple[float | None, ...]) -> Batch:
    rollout = Rollout(
        tokens=torch.tensor([1, 2]), sampled=torch.tensor([False, True]), logprobs=torch.zeros(2),
        weight_version=torch.zeros(2, dtype=torch.int32), seed=0, finish_reason=FinishReason.stop,
    )  # fmt: skip
    episode = Episode(rollout=rollout, turns=["x"], scored="x")
    made = [
        Group(
            problem=Problem(id=str(index), prompt="p", answer="a"),
            episodes=[episode] * len(rewards),
            scores=[NONE if reward is None else Score(reward=reward) for reward in rewards],
        )
        for index, rewards in enumerate(groups)
    ]
    return Batch(groups=made, drawn=made)


@pytest.mark.parametrize("kind", [AdvantageKind.grpo, AdvantageKind.rloo, AdvantageKind.reinforce_pp_baseline])
def test_a_failed_score_teaches_nothing(kind):
    """Advantage 0, and the others' signs as without it; as a reward of 0 it would push."""
    config = AlgorithmConfig(group_size=4, advantage=kind)
    failed, first, second, third = compute_advantages(_batch((None, 1.0, 1.0, 0.5)).rewards, config)[0].tolist()
    assert failed == pytest.approx(0, abs=1e-12)
    assert first == second > 0 > third
    control = compute_advantages(_batch((0.0, 1.0, 1.0, 0.5)).rewards, config)[0].tolist()
    assert control[0] < -0.1


def test_a_group_without_any_reward_stands_at_the_batchs_mean():
    batch = _batch((None, None), (1.0, 0.0), (1.0, None))
    assert batch.rewards.tolist() == [[2 / 3] * 2, [1.0, 0.0], [1.0, 1.0]]
    assert [group.has_signal for group in batch.groups] == [False, True, False]


def test_one_sample_a_group_stands_at_the_batchs_mean():
    rewards = _batch((1.0,), (None,), (0.0,), (0.0,)).rewards
    assert rewards.flatten().tolist() == [1.0, 1 / 3, 0.0, 0.0]
    config = AlgorithmConfig(group_size=1, advantage=AdvantageKind.reinforce_pp)
    assert compute_advantages(rewards, config)[1].tolist() == pytest.approx([0], abs=1e-12)


def test_metrics_are_of_the_samples_that_have_a_reward():
    batch = _batch((None, 1.0), (0.5, 0.0))
    row = reward_metrics(batch.scores, batch.rewards, 1)
    assert (row["reward/mean"], row["reward/min"], row["reward/max"], row["reward/errors"]) == (0.5, 0.0, 1.0, 1)
    assert float(batch.rewards.mean()) != row["reward/mean"]  # the control
