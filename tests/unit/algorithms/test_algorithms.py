"""Advantages and losses against hand-worked numbers and a second, naive implementation."""

import math

import pytest
import torch

from rlsync.algorithms.advantages import group_advantages, groups_without_signal
from rlsync.algorithms.losses import clipped_loss, k3_kl
from rlsync.config.algorithm import AlgorithmConfig
from rlsync.errors import ConfigError


def test_group_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3]], dtype=torch.float64)
    out = group_advantages(rewards, AlgorithmConfig())
    deviation = math.sqrt(4 * 0.25 / 3) + 1e-6
    assert out[0].tolist() == pytest.approx([0.5 / deviation, -0.5 / deviation, -0.5 / deviation, 0.5 / deviation])
    assert out[1].tolist() == [0.0] * 4  # exactly, although 0.3 - mean(0.3) may not be
    assert groups_without_signal(rewards) == 1


def test_without_std():
    out = group_advantages(torch.tensor([[1.0, 0.0]], dtype=torch.float64), AlgorithmConfig(normalize_std=False))
    assert out.tolist() == [[0.5, -0.5]]


def _naive_loss(new, old, advantages, mask, low, high):
    total, clipped = 0.0, 0
    for n, o, a, m in zip(new, old, advantages, mask, strict=True):
        if not m:
            continue
        ratio = math.exp(n - o)
        bounded = min(max(ratio, 1 - low), 1 + high)
        total += max(-a * ratio, -a * bounded)
        clipped += -a * bounded > -a * ratio
    return total, clipped


def test_clipped_loss_against_a_naive_one():
    g = torch.Generator().manual_seed(0)
    old, advantages = -torch.rand(200, generator=g), torch.randn(200, generator=g)
    new = old + torch.randn(200, generator=g) * 0.3
    mask = torch.rand(200, generator=g) < 0.7
    loss = clipped_loss(new, old, advantages, mask, 0.2, 0.28)
    want, clipped = _naive_loss(new.tolist(), old.tolist(), advantages.tolist(), mask.tolist(), 0.2, 0.28)
    assert float(loss.total) == pytest.approx(want, rel=1e-5)
    assert loss.clipped == clipped > 0


def test_clip_higher_lets_good_tokens_rise_further():
    new, old, one = torch.tensor([0.24, -0.24]), torch.zeros(2), torch.ones(2, dtype=torch.bool)
    assert clipped_loss(new, old, torch.ones(2), one, 0.2, 0.28).clipped == 0
    assert clipped_loss(new, old, torch.ones(2), one, 0.2, 0.2).clipped == 1


def test_on_policy_gradient_is_the_policy_gradient():
    new = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    mask = torch.tensor([True, True, False])
    loss = clipped_loss(new, new.detach(), torch.tensor([2.0, -1.0, 9.0]), mask, 0.2, 0.28)
    assert torch.autograd.grad(loss.total, new)[0].tolist() == [-2.0, 1.0, 0.0]
    assert (loss.ratio_min, loss.ratio_max) == (1.0, 1.0)


def test_garbage_outside_the_mask_is_not_read():
    new = torch.tensor([-1.0, float("nan")], requires_grad=True)
    loss = clipped_loss(new, torch.tensor([-1.0, 0.0]), torch.ones(2), torch.tensor([True, False]), 0.2, 0.2)
    assert torch.autograd.grad(loss.total, new)[0].tolist() == [-1.0, 0.0]


def test_k3_is_zero_on_policy_and_positive_elsewhere():
    new, mask = torch.tensor([-1.0, -2.0]), torch.ones(2, dtype=torch.bool)
    assert float(k3_kl(new, new, mask)) == 0.0
    assert float(k3_kl(new, new + 0.5, mask)) == pytest.approx(2 * (math.exp(0.5) - 1.5), rel=1e-5)


def test_a_group_of_one_is_refused():
    with pytest.raises(ConfigError, match="group_size=1"):
        AlgorithmConfig(group_size=1)
