"""KL estimators and the overlong punishment."""

import math

import pytest
import torch

from rlsync.algorithms.kl import token_kl
from rlsync.algorithms.shaping import overlong_reward
from rlsync.config.algorithm import KlKind

ALL = torch.ones(2, dtype=torch.bool)


def test_estimators_by_hand():
    new, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert token_kl(new, reference, ALL, KlKind.k1).tolist() == [0.5, -1.0]
    assert token_kl(new, reference, ALL, KlKind.k2).tolist() == [0.125, 0.5]
    want = [math.exp(-0.5) + 0.5 - 1, math.exp(1.0) - 1.0 - 1]
    assert token_kl(new, reference, ALL, KlKind.k3).tolist() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("kind", KlKind)
def test_on_policy_they_are_exactly_zero(kind):
    new = torch.tensor([-1.0, -2.0])
    assert token_kl(new, new.clone(), ALL, kind).tolist() == [0.0, 0.0]
    assert token_kl(new, new + 1e-2, ALL, kind).ne(0).all()  # the control


@pytest.mark.parametrize("kind", KlKind)
def test_garbage_outside_the_mask_is_not_read(kind):
    new = torch.tensor([-1.0, torch.nan], requires_grad=True)
    kl = token_kl(new, torch.tensor([-2.0, torch.inf]), torch.tensor([True, False]), kind)
    kl.sum().backward()
    assert kl[1] == 0
    assert new.grad.isfinite().all()


@pytest.mark.parametrize("kind", [KlKind.k1, KlKind.k3])
def test_k1_and_k3_estimate_the_kl(kind):
    """The mean of an estimator over all outcomes of a distribution is the KL."""
    p, q = (torch.log_softmax(torch.randn(50, generator=torch.Generator().manual_seed(s)).double(), 0) for s in (0, 1))
    mean = (p.exp() * token_kl(p, q, torch.ones(50, dtype=torch.bool), kind)).sum()
    assert float(mean) == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-12)


@pytest.mark.parametrize("kind", KlKind)
def test_gradients(kind):
    g = torch.Generator().manual_seed(0)
    new, reference = (-torch.rand(6, generator=g, dtype=torch.float64) for _ in range(2))
    mask = torch.arange(6) % 3 > 0
    assert torch.autograd.gradcheck(lambda x: token_kl(x, reference, mask, kind), new.requires_grad_())


def _naive_overlong(length, limit, buffer, penalty):
    if length <= limit - buffer:
        return 0.0
    return penalty * ((limit - buffer) - length) / buffer if length <= limit else -penalty


def test_overlong_punishment():
    lengths = torch.arange(1, 22)
    out = overlong_reward(lengths, max_tokens=20, buffer=4, penalty=0.5)
    assert out[15:20].tolist() == [0.0, -0.125, -0.25, -0.375, -0.5]  # lengths 16 to 20
    assert out.tolist() == pytest.approx([_naive_overlong(n, 20, 4, 0.5) for n in lengths.tolist()])
    assert overlong_reward(torch.tensor([1, 20]), max_tokens=20, buffer=20, penalty=1.0).tolist() == [-0.05, -1.0]
