"""Policy losses against hand-worked numbers, a second, naive implementation, and numeric gradients."""

import math
from dataclasses import replace

import pytest
import torch

from rlsync.algorithms.losses import LOSSES
from rlsync.config.algorithm import AlgorithmConfig, LossKind


def _loss(logprobs, pack, kind=LossKind.ppo_clip, **settings):
    return LOSSES[kind](logprobs, pack.rollout_logprobs, pack, AlgorithmConfig(loss=kind, **settings))


def _sequences(pack):
    """The items of each sequence."""
    return [(pack.sequences == s).nonzero()[:, 0].tolist() for s in range(len(pack.lengths))]


def _naive(logprobs, pack, kind, low, high, dual):
    """The loss of each item, and the items that the clip reached, in plain Python."""
    new, old, advantages = logprobs.tolist(), pack.rollout_logprobs.tolist(), pack.advantages.tolist()
    losses, clipped = {}, 0
    for rows in _sequences(pack):
        mean = math.exp(sum(new[t] - old[t] for t in rows) / len(rows))
        for t in rows:
            ratio = mean if kind is LossKind.gspo else math.exp(new[t] - old[t])
            bounded = min(max(ratio, 1 - low), 1 + high)
            if kind is LossKind.cispo:
                losses[t] = -bounded * advantages[t] * new[t]
                clipped += bounded != ratio
                continue
            gain = min(ratio * advantages[t], bounded * advantages[t])
            cut = gain < ratio * advantages[t]
            if dual and advantages[t] < 0 and gain < dual * advantages[t]:
                gain, cut = dual * advantages[t], True
            losses[t] = -gain
            clipped += cut
    return losses, clipped


@pytest.mark.parametrize("kind", LossKind)
@pytest.mark.parametrize("dual", [0.0, 1.5])
def test_against_a_naive_one(kind, dual, make_pack, make_logprobs):
    pack = make_pack([(1, 9), (3, 30), (2, 1), (1, 17), (1, 2)] * 4)
    logprobs = make_logprobs(pack, 0.5)
    low, high = (0.02, 0.01) if kind is LossKind.gspo else (0.2, 0.1)
    settings = {"clip_low": low, "clip_high": high, "dual_clip": dual if kind is LossKind.ppo_clip else 0.0}
    loss = _loss(logprobs, pack, kind, **settings)
    want, clipped = _naive(logprobs, pack, kind, low, high, settings["dual_clip"])
    assert loss.per_token.tolist() == pytest.approx([want.get(t, 0.0) for t in range(len(pack.mask))], rel=1e-12)
    assert loss.clipped == clipped > 0


def _one(ratio, advantage, make_pack):
    """A response of one token with the given importance ratio."""
    pack = make_pack([(1, 1)])
    pack = replace(pack, advantages=torch.full_like(pack.advantages, advantage))
    return (pack.rollout_logprobs + math.log(ratio)).requires_grad_(), pack


@pytest.mark.parametrize(
    ("ratio", "advantage", "dual", "loss", "slope"),
    [
        (1.1, 2.0, 0.0, -2.2, -2.2),
        (1.5, 2.0, 0.0, -2.4, 0.0),  # above 1 + 0.2: the gradient is cut off
        (0.5, 2.0, 0.0, -1.0, -1.0),  # a good token that became less probable keeps its gradient
        (0.5, -2.0, 0.0, 1.6, 0.0),  # below 1 - 0.2: the gradient is cut off
        (5.0, -2.0, 0.0, 10.0, 10.0),  # a bad token that became more probable has no bound
        (5.0, -2.0, 3.0, 6.0, 0.0),  # except with the dual clip
        (5.0, 2.0, 3.0, -2.4, 0.0),
    ],
)
def test_ppo_by_hand(ratio, advantage, dual, loss, slope, make_pack):
    logprobs, pack = _one(ratio, advantage, make_pack)
    out = _loss(logprobs, pack, clip_low=0.2, clip_high=0.2, dual_clip=dual)
    out.per_token.sum().backward()
    assert float(out.per_token.sum()) == pytest.approx(loss)
    assert float(logprobs.grad[0]) == pytest.approx(slope)
    assert out.clipped == (slope == 0)
    assert out.ratio_max == pytest.approx(ratio)


def test_clip_higher_lets_good_tokens_rise_further(make_pack):
    logprobs, pack = _one(1.25, 1.0, make_pack)
    assert _loss(logprobs, pack, clip_high=0.28).clipped == 0
    assert _loss(logprobs, pack, clip_high=0.2).clipped == 1


def test_gspo_by_hand(make_pack):
    """Two tokens have the ratios e^0.2 and 1, so the ratio of their sequence is e^0.1."""
    pack = make_pack([(1, 2)])
    pack = replace(pack, advantages=torch.ones_like(pack.advantages))
    logprobs = (pack.rollout_logprobs + torch.tensor([0.2, 0.0])).detach().requires_grad_()
    free = _loss(logprobs, pack, LossKind.gspo, clip_high=0.2)
    free.per_token.sum().backward()
    whole = math.exp(0.1)
    assert free.per_token.tolist() == pytest.approx([-whole, -whole])
    assert logprobs.grad.tolist() == pytest.approx([-whole, -whole])  # each of the 2 tokens has s / 2 from both
    assert (free.ratio_min, free.ratio_max, free.clipped) == (pytest.approx(whole), pytest.approx(whole), 0)
    assert _loss(logprobs, pack, LossKind.gspo, clip_high=4e-4).clipped == 2
    assert _loss(logprobs, pack, LossKind.ppo_clip, clip_high=0.2).clipped == 1  # the control: token by token


@pytest.mark.parametrize(("ratio", "weight"), [(1.5, 1.2), (1.1, 1.1), (0.5, 0.8)])
def test_cispo_weighs_every_token_and_cuts_none(ratio, weight, make_pack):
    logprobs, pack = _one(ratio, 2.0, make_pack)
    out = _loss(logprobs, pack, LossKind.cispo, clip_low=0.2, clip_high=0.2)
    out.per_token.sum().backward()
    assert float(logprobs.grad[0]) == pytest.approx(-2.0 * weight)
    assert out.clipped == (ratio != weight)


@pytest.mark.parametrize(("kind", "spread"), [(LossKind.ppo_clip, 0.3), (LossKind.gspo, 0.3), (LossKind.cispo, 20.0)])
@pytest.mark.parametrize("dual", [0.0, 1.3])
def test_gradients_are_those_of_the_numbers(kind, spread, dual, make_pack, make_logprobs):
    """CISPO's weight has no gradient, so numeric gradients agree only if the clip fixes it: with a wide spread."""
    pack = make_pack()
    settings = {"clip_low": 0.2, "clip_high": 0.25, "dual_clip": dual if kind is LossKind.ppo_clip else 0.0}
    assert torch.autograd.gradcheck(lambda x: _loss(x, pack, kind, **settings).per_token, make_logprobs(pack, spread))


@pytest.mark.parametrize("kind", LossKind)
def test_on_policy_the_gradient_is_the_policy_gradient_exactly(kind, make_pack):
    pack = make_pack([(1, 4), (2, 2)])
    logprobs = pack.rollout_logprobs.clone().requires_grad_()
    loss = _loss(logprobs, pack, kind)
    loss.per_token.sum().backward()
    want = torch.where(pack.mask, -pack.advantages, 0.0)
    assert torch.equal(logprobs.grad, want)
    assert (loss.ratio_min, loss.ratio_max, loss.clipped) == (1.0, 1.0, 0)
    off = _loss((pack.rollout_logprobs + 1e-7).requires_grad_(), pack, kind)
    assert off.ratio_max != 1.0  # the control


@pytest.mark.parametrize("kind", LossKind)
def test_garbage_outside_the_mask_is_not_read(kind, make_pack):
    pack = make_pack([(2, 2), (1, 3)])
    pack = replace(pack, trained=torch.tensor([True, False, True, False, False]))
    logprobs = torch.where(pack.trained, pack.rollout_logprobs, torch.nan).requires_grad_()
    loss = _loss(logprobs, pack, kind)
    loss.per_token.sum().backward()
    assert loss.per_token.isfinite().all()
    assert logprobs.grad[~pack.trained].tolist() == [0.0] * 3
    assert logprobs.grad.isfinite().all()


@pytest.mark.parametrize("kind", LossKind)
def test_filler_counts_for_nothing(kind, make_pack):
    pack = make_pack([(1, 3)])
    loss = _loss(pack.rollout_logprobs + 1, replace(pack, trained=torch.zeros_like(pack.mask)), kind)
    assert loss.per_token.tolist() == [0.0] * 3
    assert (loss.clipped, loss.ratio_min, loss.ratio_max) == (0, 1.0, 1.0)
