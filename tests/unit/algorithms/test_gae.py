"""GAE, whitening and explained variance against hand-worked numbers and a second, naive implementation."""

import math
import statistics

import pytest
import torch

from rlsync.algorithms.gae import explained_variance, gae, whiten


def _tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gae_by_hand():
    """Differences 0 + 0.5 * 2 - 1 = 0, 0 + 0.5 * 4 - 2 = 0 and 10 - 4 = 6; each later one counts a quarter."""
    out = gae(_tensor(0, 0, 10), _tensor(1, 2, 4), gamma=0.5, gae_lambda=0.5)
    assert out.tolist() == [0.375, 1.5, 6.0]
    assert out.dtype == torch.float64


def test_the_two_ends_of_lambda():
    rewards, values = _tensor(1, 2, 3), _tensor(10, 20, 40)
    assert gae(rewards, values, gamma=1.0, gae_lambda=1.0).tolist() == [6 - 10, 5 - 20, 3 - 40]
    assert gae(rewards, values, gamma=1.0, gae_lambda=0.0).tolist() == [1 + 20 - 10, 2 + 40 - 20, 3 - 40]


def _naive(rewards, values, gamma, gae_lambda):
    """Eq. 16 as the paper writes it: the sum over l of (gamma lambda)^l d_(t+l)."""
    values = [*values, 0.0]
    surprises = [r + gamma * values[t + 1] - values[t] for t, r in enumerate(rewards)]
    return [sum((gamma * gae_lambda) ** (k - t) * surprises[k] for k in range(t, len(rewards))) for t in
            range(len(rewards))]  # fmt: skip


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("gae_lambda", [1.0, 0.95, 0.0])
def test_against_a_naive_one(gamma, gae_lambda):
    rewards, values = _random(3, 17), _random(3, 17, seed=1)
    out = gae(rewards, values, gamma=gamma, gae_lambda=gae_lambda)
    for row in range(3):
        want = _naive(rewards[row].tolist(), values[row].tolist(), gamma, gae_lambda)
        assert out[row].tolist() == pytest.approx(want, rel=1e-12, abs=1e-12)


def test_zeros_after_the_end_change_nothing():
    rewards, values = _random(5), _random(5, seed=1)
    short = gae(rewards, values, gamma=0.9, gae_lambda=0.95)
    padded, more = (torch.nn.functional.pad(t, (0, 3)) for t in (rewards, values))
    long = gae(padded, more, gamma=0.9, gae_lambda=0.95)
    assert torch.equal(long[:5], short)
    assert long[5:].eq(0).all()
    more[5] = 1.0
    assert not torch.equal(gae(padded, more, gamma=0.9, gae_lambda=0.95)[:5], short)  # the control


def test_whitening():
    values = _random(50).tolist()
    want = [(v - statistics.mean(values)) / (statistics.stdev(values) + 1e-6) for v in values]
    assert whiten(_tensor(*values)).tolist() == pytest.approx(want, rel=1e-12, abs=1e-12)
    assert whiten(_tensor(0.0, 2.0)).tolist() == pytest.approx([-1 / (math.sqrt(2) + 1e-6), 1 / (math.sqrt(2) + 1e-6)])


def test_equal_ones_whiten_to_exactly_zero():
    """The results are 0, although in float64 0.1 minus the mean of three times 0.1 is not (the control)."""
    equal = _tensor(0.1, 0.1, 0.1)
    assert torch.equal(whiten(equal), torch.zeros_like(equal))
    assert torch.equal(whiten(_tensor(0.1)), torch.zeros_like(_tensor(0.1)))
    assert (equal - equal.mean()).ne(0).any()


def test_explained_variance_by_hand():
    returns = _tensor(0, 1, 0, 1)
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(_tensor(0.5, 0.5, 0.5, 0.5), returns) == 0.0
    assert explained_variance(_tensor(0, 0.5, 0, 0.5), returns) == 0.75
    assert explained_variance(1 - returns, returns) == -3.0
    assert explained_variance(_tensor(1, 2), _tensor(1, 1)) == 0.0
