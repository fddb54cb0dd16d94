"""Advantages of groups, and GAE over only the sampled tokens."""

from dataclasses import dataclass

import pytest
import torch

from rlsync.algorithms.gae import gae
from rlsync.config.algorithm import AdvantageKind, AlgorithmConfig
from rlsync.controller.credit import assign_credit
from rlsync.data.problem import Problem
from rlsync.samples import Episode, FinishReason, Rollout, Sample, Score
from rlsync.telemetry.metrics import Metrics

INTERLEAVED = "..SS.S...SS."
"""A rollout with a prompt, and an environment's tokens between those of the model."""


def _rollout(pattern: str) -> Rollout:
    sampled = torch.tensor([mark == "S" for mark in pattern])
    return Rollout(
        tokens=torch.arange(len(pattern)), sampled=sampled, logprobs=torch.zeros(len(pattern)),
        weight_version=torch.zeros(len(pattern), dtype=torch.int32), seed=0, finish_reason=FinishReason.stop,
    )  # fmt: skip


def _spread(rollout, values, dtype):
    out = torch.zeros(rollout.tokens.numel(), dtype=dtype)
    out[rollout.sampled] = torch.tensor(values, dtype=dtype)
    return out


@dataclass
class Credit:
    samples: list[Sample]
    metrics: Metrics


def _sample(rollout, reward) -> Sample:
    reward = _spread(rollout, reward, torch.float64)
    score = Score(reward=None if reward.isnan().any() else float(reward.sum()))
    episode = Episode(rollout=rollout, turns=["x"], scored="x")
    return Sample(problem=Problem(id="0", prompt="p", answer="a"), episode=episode, score=score, reward=reward)


def _credit(rollouts, rewards, values, **settings):
    settings = {"advantage": AdvantageKind.gae, "group_size": 1, "whiten": False, **settings}
    samples = [_sample(rollout, reward) for rollout, reward in zip(rollouts, rewards, strict=True)]
    old = [_spread(r, value, torch.float32) for r, value in zip(rollouts, values, strict=True)]
    return Credit(samples, assign_credit(samples, AlgorithmConfig(**settings), lambda _: old))


def test_gae_by_hand():
    credit = _credit([_rollout(".SS"), _rollout("..S")], [[0, 1], [0.5]], [[0.25, 0.5], [1.0]])
    first, second = credit.samples
    assert first.advantage.tolist() == [0, 0.75, 0.5]
    assert first.value.old.tolist() == [0, 0.25, 0.5]
    assert first.value.returns.tolist() == [0, 1, 1]
    assert (second.advantage.tolist(), second.value.returns.tolist()) == ([0, 0, -0.5], [0, 0, 0.5])
    assert first.advantage.dtype == first.value.old.dtype == first.value.returns.dtype == torch.float32
    assert credit.metrics["critic/value_mean"] == pytest.approx(1.75 / 3)
    variance, left = 2 * 0.25 / 9, 0.75**2 + 0.5**2 + 0.5**2 - (0.75 + 0.5 - 0.5) ** 2 / 3
    assert credit.metrics["critic/explained_variance"] == pytest.approx(1 - left / 3 / variance)


def test_the_environments_tokens_are_as_if_not_there():
    rewards, values = [0.0, -0.1, 0.2, 0.0, 1.0], [0.3, 0.1, -0.4, 0.6, 0.7]
    settings = {"gamma": 0.9, "gae_lambda": 0.8}
    mixed, plain = _rollout(INTERLEAVED), _rollout(".SSSSS")
    (one,) = _credit([mixed], [rewards], [values], **settings).samples
    (other,) = _credit([plain], [rewards], [values], **settings).samples
    for a, b in ((one.advantage, other.advantage), (one.value.returns, other.value.returns)):
        assert torch.equal(a[mixed.sampled], b[plain.sampled])
        assert a[~mixed.sampled].eq(0).all()
    through = gae(*(_spread(mixed, v, torch.float64) for v in (rewards, values)), **settings).float()
    assert not torch.equal(through[mixed.sampled], one.advantage[mixed.sampled])  # the control: a step for every token


def test_rollouts_do_not_see_each_other():
    rollouts = [_rollout(INTERLEAVED), _rollout(".S"), _rollout(".SSSSSSSS")]
    g = torch.Generator().manual_seed(0)
    rewards, values = ([torch.randn(r.num_sampled, generator=g).tolist() for r in rollouts] for _ in range(2))
    together = _credit(rollouts, rewards, values, gae_lambda=0.9).samples
    alone = [
        _credit([r], [a], [v], gae_lambda=0.9).samples[0] for r, a, v in zip(rollouts, rewards, values, strict=True)
    ]
    assert all(torch.equal(a.advantage, b.advantage) for a, b in zip(together, alone, strict=True))
    whitened = _credit(rollouts, rewards, values, gae_lambda=0.9, whiten=True).samples
    assert not torch.equal(whitened[0].advantage, alone[0].advantage)  # the control
    inside = torch.cat([s.advantage[s.rollout.sampled] for s in whitened])
    assert (float(inside.mean()), float(inside.std())) == pytest.approx((0, 1), abs=1e-5)
    assert all(torch.equal(a.value.returns, b.value.returns) for a, b in zip(whitened, alone, strict=True))


def test_a_group_gets_one_number_from_its_summed_rewards():
    def no_values(rollouts):
        raise AssertionError("there is no critic")

    rollouts = [_rollout(".SS"), _rollout("S.S")]
    samples = [_sample(rollout, [0.25, last]) for rollout, last in zip(rollouts, (0.75, -0.25), strict=True)]
    config = AlgorithmConfig(group_size=2, normalize_std=False)
    assert assign_credit(samples, config, no_values) == {}
    assert [s.advantage.tolist() for s in samples] == [[0, 0.5, 0.5], [-0.5, 0, -0.5]]
    assert [s.value for s in samples] == [None, None]


@pytest.mark.parametrize("kind", [AdvantageKind.gae, AdvantageKind.grpo])
def test_a_rollout_without_a_reward_is_not_trained_on_and_changes_no_other(kind):
    rollouts = [_rollout(".SS"), _rollout("..S"), _rollout(".S.S")]
    rewards, values = [[0.0, 1.0], [0.5], [0.0, torch.nan]], [[0.25, 0.5], [1.0], [0.7, 0.1]]
    settings = {"advantage": kind, "whiten": True}
    with_it = _credit(rollouts, rewards, values, group_size=3, **settings)
    without = _credit(rollouts[:2], rewards[:2], values[:2], group_size=2, **settings)
    assert [sample.trained for sample in with_it.samples] == [True, True, False]
    assert with_it.metrics == without.metrics
    for one, other in zip(with_it.samples, without.samples, strict=False):
        assert torch.equal(one.advantage, other.advantage)
        if kind is AdvantageKind.gae:
            assert torch.equal(one.value.returns, other.value.returns)
    invented = _credit(rollouts, [*rewards[:2], [0.0, 0.75]], values, group_size=3, **settings)  # the control
    assert not torch.equal(invented.samples[0].advantage, with_it.samples[0].advantage)
