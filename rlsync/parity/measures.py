"""Measures of a mismatch that other frameworks report, so that runs can be compared with theirs.

With t the trainer's and s the rollout's log-prob of a token, and means over compared tokens:

- KL of the rollout from the trainer, by the estimators of http://joschu.net/blog/kl-approx.html: k1 = mean(s - t) and
  k3 = mean(e^(t-s) - (t-s) - 1);
- difference of probabilities |e^t - e^s|: mean, maximum, standard deviation; and Pearson's correlation of e^t and e^s;
- ratio of perplexities: e^(mean(s - t)), the trainer's over the rollout's;
- chi-square divergence: mean(e^(2(t-s))) - 1;
- effective sample size of importance weights w = e^(t-s), as a share of the tokens: (sum w)^2 / (n sum w^2).

Equal log-probs give 0, 0; 0, 0, 0 and 1; 1; 0; 1, exactly. NaN and infinity are passed on, not left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch


@dataclass(slots=True, kw_only=True)
class MismatchSums:
    """Sums over compared tokens, from which `Mismatch` is made. Sums of disjoint sets of tokens add up."""

    count: int = 0
    """Number of tokens."""
    k1: float = 0.0
    """Sum of s - t."""
    k3: float = 0.0
    """Sum of e^(t-s) - (t-s) - 1."""
    ratio: float = 0.0
    """Sum of e^(t-s)."""
    ratio_squared: float = 0.0
    """Sum of e^(2(t-s))."""
    prob_diff: float = 0.0
    """Sum of |e^t - e^s|."""
    prob_diff_squared: float = 0.0
    """Sum of (e^t - e^s)^2."""
    prob_diff_max: float = 0.0
    """Largest |e^t - e^s|."""
    trainer: float = 0.0
    """Sum of e^t."""
    rollout: float = 0.0
    """Sum of e^s."""
    trainer_squared: float = 0.0
    """Sum of e^(2t)."""
    rollout_squared: float = 0.0
    """Sum of e^(2s)."""
    product: float = 0.0
    """Sum of e^t e^s."""


@dataclass(slots=True, kw_only=True, frozen=True)
class Mismatch:
    """The measures of this module."""

    k1_kl: float
    k3_kl: float
    prob_diff_mean: float
    prob_diff_max: float
    prob_diff_std: float
    prob_pearson: float
    """NaN if one side's probabilities are all equal and the other's are not."""
    ppl_ratio: float
    chi2: float
    ess: float


def mismatch_sums(trainer: torch.Tensor, rollout: torch.Tensor) -> MismatchSums:
    """Return the sums for log-probs t and s, [N] fp32 each."""
    if not trainer.numel():
        return MismatchSums()
    t, s = trainer.double(), rollout.double()
    d, p, q = t - s, t.exp(), s.exp()
    ratio, apart = d.exp(), (p - q).abs()
    sums = (-d, ratio - d - 1, ratio, ratio**2, apart, apart**2, p, q, p * p, q * q, p * q)
    names = [field.name for field in fields(MismatchSums) if field.name not in ("count", "prob_diff_max")]
    values = torch.stack([each.sum() for each in sums] + [apart.max()]).tolist()  # one transfer from a GPU
    return MismatchSums(count=t.numel(), **dict(zip(names, values, strict=False)), prob_diff_max=values[-1])


def add_sums(parts: list[MismatchSums]) -> MismatchSums:
    """Return the sums of disjoint sets of tokens together."""
    total = MismatchSums()
    for part in parts:
        for field in fields(MismatchSums):
            mine, other = getattr(total, field.name), getattr(part, field.name)
            combined = _larger(mine, other) if field.name == "prob_diff_max" else mine + other
            setattr(total, field.name, combined)
    return total


def mismatch(sums: MismatchSums) -> Mismatch:
    """Return the measures; all are NaN if no token was compared."""
    n = sums.count or math.nan
    mean = sums.prob_diff / n
    return Mismatch(
        k1_kl=sums.k1 / n,
        k3_kl=sums.k3 / n,
        prob_diff_mean=mean,
        prob_diff_max=sums.prob_diff_max if sums.count else math.nan,
        prob_diff_std=math.sqrt(_at_least_zero(sums.prob_diff_squared / n - mean**2)),
        prob_pearson=_pearson(sums),
        ppl_ratio=_exp(sums.k1 / n),
        chi2=sums.ratio_squared / n - 1,
        ess=sums.ratio**2 / (n * sums.ratio_squared) if sums.ratio_squared else math.nan,
    )


def _pearson(sums: MismatchSums) -> float:
    n = sums.count
    covariance = n * sums.product - sums.trainer * sums.rollout
    mine = _at_least_zero(n * sums.trainer_squared - sums.trainer**2)
    theirs = _at_least_zero(n * sums.rollout_squared - sums.rollout**2)
    spread = mine if mine == theirs else math.sqrt(mine) * math.sqrt(theirs)  # so that equal sides give 1 exactly
    if spread:
        return covariance / spread
    return 1.0 if n and covariance == mine == theirs else math.nan


def _larger(a: float, b: float) -> float:
    """Return the larger number, or NaN if one of them is NaN."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def _at_least_zero(x: float) -> float:
    """Return x without the small negative value that rounding may leave; NaN stays NaN."""
    return 0.0 if x < 0 else x


def _exp(x: float) -> float:
    return math.inf if x > 700 else math.exp(x)
