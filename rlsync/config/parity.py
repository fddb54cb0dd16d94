"""Configuration of the monitor, which compares the log-probs of rollout and trainer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OnDivergence(StrEnum):
    """The action to take when bits differ."""

    fail = "fail"
    """Stop the run before the weights are updated."""
    trace = "trace"
    """Like fail, but first replay a sequence that differs, and name the layer, the op and the rank that differ."""
    warn = "warn"
    """Say so in every step, and continue."""

    @property
    def stops(self) -> bool:
        """Whether a divergence ends the run."""
        return self is not OnDivergence.warn


class Coverage(StrEnum):
    """Which tokens are compared."""

    first = "first"
    """The tokens of the forward passes that run with the weights that sampled them; with one minibatch these are all
    tokens."""
    all = "all"
    """Every token; with several minibatches this takes one extra forward pass before the first update."""


class Fault(StrEnum):
    """Fault that is planted on purpose."""

    none = "none"
    """No fault."""
    ulp = "ulp"
    """One weight of the last TP worker is changed by one ulp after the digest was computed."""
    stale_shard = "stale_shard"
    """The last TP worker keeps an old value of one tensor."""


@dataclass(kw_only=True, slots=True)
class ParityConfig:
    """Configuration of the monitor."""

    on_divergence: OnDivergence = OnDivergence.fail
    redraw: bool = True
    """The trainer repeats every draw from its own log-probs, the seed and the position."""
    coverage: Coverage = Coverage.all
    fault: Fault = Fault.none
    """Fault to plant, to see that the monitor detects it."""
    fault_step: int = 2
    """Step whose rollouts the fault affects."""
