"""The critic's loss against hand-worked numbers, and its gradient."""

from dataclasses import replace

import pytest
import torch

from rlsync.algorithms.value_loss import value_loss


def _tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def pack(make_pack):
    """Three sampled tokens, and one outside the mask."""
    mask = torch.tensor([True, True, True, False])
    values = {"old_values": _tensor(0.0, 1.0, 1.0, 5.0), "returns": _tensor(1.0, 2.0, 1.0, 9.0)}
    return replace(make_pack([(1, 4)]), trained=mask, **values)


def test_by_hand(pack):
    """Values move by 0.1 towards the return, by 0.5 beyond the clip (cut off), and by 0.5 away from it (kept)."""
    values = _tensor(0.1, 1.5, 1.5, float("nan")).requires_grad_()
    terms = value_loss(values, pack, 0.2)
    assert float(terms.total) == pytest.approx((0.9**2 + (1.2 - 2) ** 2 + 0.5**2) / 2)
    assert terms.clipped == 1
    terms.total.backward()
    assert values.grad.tolist() == pytest.approx([-0.9, 0.0, 0.5, 0.0])


def test_without_a_clip(pack):
    values = _tensor(0.1, 1.5, 1.5, float("nan")).requires_grad_()
    terms = value_loss(values, pack, 0.0)
    assert float(terms.total) == pytest.approx((0.9**2 + 0.5**2 + 0.5**2) / 2)
    assert terms.clipped == 0
    terms.total.backward()
    assert values.grad.tolist() == pytest.approx([-0.9, -0.5, 0.5, 0.0])


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_the_gradient(clip, make_pack):
    pack = make_pack()
    g = torch.Generator().manual_seed(2)
    old, returns, values = (torch.randn(len(pack.mask), generator=g, dtype=torch.float64) for _ in range(3))
    pack = replace(pack, old_values=old, returns=returns)
    assert bool(value_loss(values, pack, clip).clipped) == bool(clip)
    assert torch.autograd.gradcheck(lambda v: value_loss(v, pack, clip).total, (values.requires_grad_(),))


def test_values_before_the_step_are_never_cut_off(make_pack):
    pack = make_pack()
    old = torch.randn(len(pack.mask), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pack = replace(pack, old_values=old, returns=torch.zeros_like(old))
    assert value_loss(old, pack, 1e-3).clipped == 0
    assert value_loss(old * 0.9, pack, 1e-3).clipped > 0  # the control
