"""Counts of the monitor's comparisons on a set of tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest

from rlsync.parity.measures import MismatchSums, add_sums


@dataclass(slots=True, kw_only=True, frozen=True)
class Difference:
    """The place of a difference, and the log-probs there."""

    sequence: int
    """Sequence id of the token."""
    position: int
    """Position of the token in its sequence."""
    trainer: float
    """The trainer's log-prob."""
    rollout: float
    """The rollout's log-prob."""


@dataclass(slots=True, kw_only=True)
class ParityCounts:
    """Results of the monitor for a set of tokens. `merge` adds the counts of disjoint sets."""

    tokens_sampled: int = 0
    """Number of tokens that the model sampled."""
    tokens_compared: int = 0
    """Number of tokens whose log-probs were compared."""
    tokens_left_out_stale: int = 0
    """Number of tokens that were sampled at weights of another version than the trainer's before the step."""
    tokens_left_out_updated: int = 0
    """Number of tokens that were forwarded only after an update within the step (parity.coverage=first)."""
    tokens_different: int = 0
    """Number of compared tokens whose log-probs have different bits."""
    rows_compared: int = 0
    """Number of tokens for which the digests of all logits of their row were compared."""
    rows_different: int = 0
    """Number of those whose digests differ."""
    draws_compared: int = 0
    """Number of tokens that were drawn again."""
    draws_different: int = 0
    """Number of tokens for which the redraw gave another token."""
    nonfinite: int = 0
    """Number of compared tokens with a NaN or infinite log-prob on either side."""
    max_abs_diff: float = 0.0
    """Largest difference of two log-probs, in nats; infinite if one of them is NaN."""
    max_ulp: int = 0
    """Largest difference of two log-probs, in units in the last place."""
    ulps_by_power: list[int] = field(default_factory=list)
    """Number of tokens whose log-probs differ by 2^n to 2^(n+1) - 1 units in the last place, for n from 0; empty if
    none differ."""
    first: Difference | None = None
    """The first token whose log-prob or row differs; None if none does."""
    mismatch: MismatchSums = field(default_factory=MismatchSums)
    """Sums for the measures that other frameworks report."""

    @property
    def share_compared(self) -> float:
        """The share of the sampled tokens that were compared; 0 if there were none."""
        return self.tokens_compared / max(1, self.tokens_sampled)


@dataclass(slots=True, kw_only=True, frozen=True)
class Expected:
    """The counts that a step must have if nothing was left out by mistake."""

    tokens_sampled: int
    """Number of tokens that the model sampled in the step's samples."""
    tokens_left_out: int = 0
    """Number of those that the configuration lets the monitor leave out."""


def merge(parts: list[ParityCounts]) -> ParityCounts:
    """Add up the counts of disjoint sets of tokens. The first difference is the one with the lowest sequence id."""
    total = ParityCounts()
    for part in parts:
        total.tokens_sampled += part.tokens_sampled
        total.tokens_compared += part.tokens_compared
        total.tokens_left_out_stale += part.tokens_left_out_stale
        total.tokens_left_out_updated += part.tokens_left_out_updated
        total.tokens_different += part.tokens_different
        total.rows_compared += part.rows_compared
        total.rows_different += part.rows_different
        total.draws_compared += part.draws_compared
        total.draws_different += part.draws_different
        total.nonfinite += part.nonfinite
        total.max_abs_diff = max(total.max_abs_diff, part.max_abs_diff)
        total.max_ulp = max(total.max_ulp, part.max_ulp)
    total.ulps_by_power = [sum(same) for same in zip_longest(*(part.ulps_by_power for part in parts), fillvalue=0)]
    found = [part.first for part in parts if part.first is not None]
    total.first = min(found, key=lambda each: (each.sequence, each.position), default=None)
    total.mismatch = add_sums([part.mismatch for part in parts])
    return total
