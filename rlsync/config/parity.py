"""The mismatch monitor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OnDivergence(StrEnum):
    fail = "fail"
    warn = "warn"


class Coverage(StrEnum):
    first = "first"
    """Compare in the passes that run at the sampler's weights (all of them with one minibatch)."""
    all = "all"
    """Compare every token, by one extra forward pass when there are several minibatches."""


class Fault(StrEnum):
    none = "none"
    ulp = "ulp"
    """Change one weight of the last TP worker by one ulp, after the digest was taken."""
    stale_shard = "stale_shard"
    """The last TP worker keeps an old value of one tensor."""


@dataclass(kw_only=True, slots=True)
class ParityConfig:
    on_divergence: OnDivergence = OnDivergence.fail
    redraw: bool = True
    """The trainer draws every token again from its own log-probs, the seed and the position."""
    coverage: Coverage = Coverage.first
    fault: Fault = Fault.none
    """A drill: plant this fault to see the monitor catch it."""
    fault_step: int = 2
    """Step whose rollouts are to suffer from it."""
