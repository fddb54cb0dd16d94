"""The measures of other frameworks: closed forms on a few tokens, exact values for equal sides, sums that add up."""

import math

import pytest
import torch

from rlsync.parity.measures import MismatchSums, add_sums, mismatch, mismatch_sums

TRAINER = torch.tensor([-0.5, -1.0, -2.5, -0.1])
ROLLOUT = torch.tensor([-0.6, -1.0, -2.0, -0.2])


def test_each_measure_is_its_formula():
    found = mismatch(mismatch_sums(TRAINER, ROLLOUT))
    t, s = TRAINER.double(), ROLLOUT.double()
    ratio, apart = (t - s).exp(), (t.exp() - s.exp()).abs()
    assert found.k1_kl == pytest.approx(float((s - t).mean()))
    assert found.k3_kl == pytest.approx(float((ratio - (t - s) - 1).mean()))
    assert found.prob_diff_mean == pytest.approx(float(apart.mean()))
    assert found.prob_diff_max == pytest.approx(float(apart.max()))
    assert found.prob_diff_std == pytest.approx(float(apart.std(correction=0)))
    assert found.prob_pearson == pytest.approx(float(torch.corrcoef(torch.stack((t.exp(), s.exp())))[0, 1]))
    assert found.ppl_ratio == pytest.approx(math.exp(float((s - t).mean())))
    assert found.chi2 == pytest.approx(float((ratio**2).mean() - 1))
    assert found.ess == pytest.approx(float(ratio.sum() ** 2 / (4 * (ratio**2).sum())))


@pytest.mark.parametrize("logprobs", [ROLLOUT, torch.full((3,), -0.7), torch.randn(999).mul(3).clamp(max=0)])
def test_equal_sides_give_exact_values(logprobs):
    found = mismatch(mismatch_sums(logprobs, logprobs))
    assert (found.k1_kl, found.k3_kl, found.prob_diff_mean, found.prob_diff_max, found.prob_diff_std) == (0,) * 5
    assert (found.prob_pearson, found.ppl_ratio, found.chi2, found.ess) == (1, 1, 0, 1)
    assert mismatch(mismatch_sums(logprobs, logprobs - 0.01)).k1_kl != 0  # the control


def test_sums_of_parts_add_up():
    whole = mismatch_sums(TRAINER, ROLLOUT)
    parts = add_sums([mismatch_sums(TRAINER[:1], ROLLOUT[:1]), MismatchSums(), mismatch_sums(TRAINER[1:], ROLLOUT[1:])])
    assert parts.count == whole.count == 4
    assert mismatch(parts).k3_kl == pytest.approx(mismatch(whole).k3_kl)
    assert parts.prob_diff_max == whole.prob_diff_max


def test_nan_is_passed_on_and_no_token_gives_nan():
    bad = ROLLOUT.clone()
    bad[1] = math.nan
    found = mismatch(add_sums([mismatch_sums(TRAINER, bad), mismatch_sums(TRAINER, ROLLOUT)]))
    assert all(math.isnan(each) for each in (found.k1_kl, found.prob_diff_max, found.prob_pearson, found.ess))
    assert math.isnan(mismatch(MismatchSums()).k3_kl)
