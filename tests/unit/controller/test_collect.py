"""Samples without a reward in a batch: they get no advantage, and do not change the advantages of others."""

import pytest
import torch

from rlsync.algorithms.advantages import compute_advantages
from rlsync.config.algorithm import AdvantageKind, AlgorithmConfig
from rlsync.controller.collect import Batch, Group
from rlsync.controller.metrics import reward_metrics
from rlsync.data.problem import Problem
from rlsync.samples import Episode, FinishReason, Rollout, Sample, Score

NONE = Score(reward=None, error="x")


def _batch(*groups: tuple[float | None, ...]) -> Batch:
    rollout = Rollout(
        tokens=torch.tensor([1, 2]), sampled=torch.tensor([False, True]), logprobs=torch.zeros(2),
        weight_version=torch.zeros(2, dtype=torch.int32), seed=0, finish_reason=FinishReason.stop,
    )  # fmt: skip
    episode = Episode(rollout=rollout, turns=["x"], scored="x")
    made = [
        Group(
            samples=[
                Sample(
                    problem=Problem(id=str(index), prompt="p", answer="a"),
                    episode=episode,
                    score=NONE if reward is None else Score(reward=reward),
                )
                for reward in rewards
            ]
        )
        for index, rewards in enumerate(groups)
    ]
    return Batch(groups=made, drawn=made)


@pytest.mark.parametrize("kind", [kind for kind in AdvantageKind if kind is not AdvantageKind.gae])
def test_a_failed_score_teaches_nothing(kind):
    """The other samples have the advantages of a batch without the sample."""
    failed = compute_advantages(_batch((1.0, 1.0, 0.5, None)).rewards, AlgorithmConfig(group_size=4, advantage=kind))
    without = compute_advantages(_batch((1.0, 1.0, 0.5)).rewards, AlgorithmConfig(group_size=3, advantage=kind))
    assert failed[0].tolist() == [*without[0].tolist(), 0.0]
    control = compute_advantages(_batch((1.0, 1.0, 0.5, 0.0)).rewards, AlgorithmConfig(group_size=4, advantage=kind))
    assert control[0, 3] < -0.1  # a reward of 0 would give a negative advantage


def test_a_failed_score_beats_no_wrong_answer():
    """With its group's mean as its reward, it would have an advantage of +0.935 here."""
    config = AlgorithmConfig(group_size=4, advantage=AdvantageKind.reinforce_pp)
    out = compute_advantages(_batch((1.0, 1.0, 1.0, None), (0.0, 0.0, 0.0, 0.0)).rewards, config)
    given = torch.tensor([1.0] * 3 + [0.0] * 4, dtype=torch.float64)
    assert out[0].tolist() == [*((given[:3] - given.mean()) / (given.std() + 1e-6)).tolist(), 0.0]


def test_a_group_without_any_reward_teaches_nothing_and_stands_nowhere():
    batch = _batch((None, None), (1.0, 0.0), (1.0, None))
    assert torch.equal(batch.rewards.isnan(), torch.tensor([[True, True], [False, False], [False, True]]))
    assert [group.has_signal for group in batch.groups] == [False, True, False]
    for kind in (AdvantageKind.grpo, AdvantageKind.rloo, AdvantageKind.reinforce_pp_baseline):
        out = compute_advantages(batch.rewards, AlgorithmConfig(group_size=2, advantage=kind))
        assert out[0].tolist() == [0, 0]
        assert out[2].tolist() == [0, 0]
        assert out[1, 0] > 0 > out[1, 1]


def test_metrics_are_of_the_samples_that_have_a_reward():
    batch = _batch((None, 1.0), (0.5, 0.0))
    row = reward_metrics(batch.samples, batch.rewards, 1)
    assert (row["reward/mean"], row["reward/min"], row["reward/max"], row["reward/errors"]) == (0.5, 0.0, 1.0, 1)
    assert row["reward/group_std_mean"] == 0.125  # of a group of one reward, and of one of two
    assert float(batch.rewards.nan_to_num().mean()) != row["reward/mean"]  # the control: failures as zeros
