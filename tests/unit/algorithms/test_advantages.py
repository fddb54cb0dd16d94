"""Advantages against hand-worked numbers and a second, naive implementation."""

import math
import statistics

import pytest
import torch

from rlsync.algorithms.advantages import compute_advantages, groups_without_signal
from rlsync.config.algorithm import AdvantageKind, AlgorithmConfig
from rlsync.errors import ConfigError

OF_REWARDS = [kind for kind in AdvantageKind if kind is not AdvantageKind.gae]  # GAE is per token: test_gae.py
TWO_GROUPS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3]], dtype=torch.float64)


def _advantages(rewards, kind, **settings):
    return compute_advantages(rewards, AlgorithmConfig(advantage=kind, **settings))


def test_grpo_by_hand():
    out = _advantages(TWO_GROUPS, AdvantageKind.grpo)
    deviation = math.sqrt(4 * 0.25 / 3) + 1e-6
    assert out[0].tolist() == pytest.approx([0.5 / deviation, -0.5 / deviation, -0.5 / deviation, 0.5 / deviation])
    assert groups_without_signal(TWO_GROUPS) == 1


def test_dr_grpo_by_hand():
    rewards = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert _advantages(rewards, AdvantageKind.grpo, normalize_std=False).tolist() == [[0.5, -0.5]]


def test_rloo_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.float64)
    assert _advantages(rewards, AdvantageKind.rloo)[0].tolist() == pytest.approx([0.75, -0.75, 0.0])


def test_reinforce_pp_by_hand():
    rewards = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    deviation = math.sqrt(4 * 0.25 / 3) + 1e-6
    assert _advantages(rewards, AdvantageKind.reinforce_pp).flatten().tolist() == pytest.approx(
        [0.5 / deviation] * 2 + [-0.5 / deviation] * 2
    )
    assert _advantages(rewards, AdvantageKind.reinforce_pp_baseline).eq(0).all()  # the control: groups count there


def test_reinforce_pp_baseline_by_hand():
    rewards = torch.tensor([[3.0, 1.0], [0.5, 0.5]], dtype=torch.float64)
    deviation = math.sqrt(2 / 3) + 1e-6  # the standard deviation of 1, -1, 0, 0
    out = _advantages(rewards, AdvantageKind.reinforce_pp_baseline).flatten().tolist()
    assert out == pytest.approx([1 / deviation, -1 / deviation, 0.0, 0.0])


def _naive(rewards, kind):
    everything = [r for group in rewards for r in group]
    centred = [[r - statistics.mean(group) for r in group] for group in rewards]
    flat = [r for group in centred for r in group]
    out = []
    for group, around in zip(rewards, centred, strict=True):
        for index, (reward, middle) in enumerate(zip(group, around, strict=True)):
            match kind:
                case AdvantageKind.grpo:
                    out.append(middle / (statistics.stdev(group) + 1e-6))
                case AdvantageKind.rloo:
                    out.append(reward - statistics.mean(group[:index] + group[index + 1 :]))
                case AdvantageKind.reinforce_pp:
                    out.append((reward - statistics.mean(everything)) / (statistics.stdev(everything) + 1e-6))
                case AdvantageKind.reinforce_pp_baseline:
                    out.append((middle - statistics.mean(flat)) / (statistics.stdev(flat) + 1e-6))
    return out


@pytest.mark.parametrize("kind", OF_REWARDS)
def test_against_a_naive_one(kind):
    rewards = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = _advantages(rewards, kind)
    assert out.shape == rewards.shape
    assert out.dtype == torch.float64
    assert out.flatten().tolist() == pytest.approx(_naive(rewards.tolist(), kind), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", [k for k in OF_REWARDS if k is not AdvantageKind.reinforce_pp])
def test_a_group_of_equal_rewards_gives_exactly_zero(kind):
    """The advantages are 0, although in float64 0.1 minus the mean of three times 0.1 is not (the control)."""
    equal = torch.full((1, 3), 0.1, dtype=torch.float64)
    rewards = torch.cat((equal, torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64)))
    assert _advantages(rewards, kind)[0].tolist() == [0.0] * 3
    assert (equal - equal.mean()).ne(0).any()


def test_a_batch_of_equal_rewards_gives_exactly_zero():
    equal = torch.full((3, 1), 0.1, dtype=torch.float64)
    assert _advantages(equal, AdvantageKind.reinforce_pp, group_size=1).eq(0).all()


def test_a_group_of_one_is_for_what_compares_no_group():
    with pytest.raises(ConfigError, match="group_size=1"):
        AlgorithmConfig(group_size=1)
    for kind in (AdvantageKind.reinforce_pp, AdvantageKind.gae):
        assert AlgorithmConfig(group_size=1, advantage=kind).group_size == 1
