"""Counts of the monitor's comparisons on a set of tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class ParityCounts:
    """Results of the monitor for a set of tokens. `merge` adds the counts of disjoint sets."""

    tokens_sampled: int = 0
    """Number of tokens that the model sampled."""
    tokens_compared: int = 0
    """Number of tokens whose log-probs were compared."""
    tokens_left_out_stale: int = 0
    """Number of tokens that were sampled at other weights than those of the forward pass."""
    tokens_different: int = 0
    """Number of compared tokens whose log-probs have different bits."""
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
    k3_sum: float = 0.0
    """Sum over compared tokens of e^d - d - 1, where d is trainer minus rollout log-prob, in nats."""
    first_sequence: int = -1
    """Sequence id of the first token that differs; -1 if none does."""
    first_position: int = -1
    """Position of that token in its sequence; -1 if none differs."""
    first_trainer: float = 0.0
    """The trainer's log-prob of that token."""
    first_rollout: float = 0.0
    """The rollout's log-prob of that token."""


def merge(parts: list[ParityCounts]) -> ParityCounts:
    """Add up the counts of disjoint sets of tokens. The first difference is the one with the lowest sequence id."""
    total = ParityCounts()
    for part in parts:
        total.tokens_sampled += part.tokens_sampled
        total.tokens_compared += part.tokens_compared
        total.tokens_left_out_stale += part.tokens_left_out_stale
        total.tokens_different += part.tokens_different
        total.draws_compared += part.draws_compared
        total.draws_different += part.draws_different
        total.nonfinite += part.nonfinite
        total.max_abs_diff = max(total.max_abs_diff, part.max_abs_diff)
        total.max_ulp = max(total.max_ulp, part.max_ulp)
        total.k3_sum += part.k3_sum
        found = (part.first_sequence, part.first_position)
        if part.tokens_different and (total.first_position < 0 or found < (total.first_sequence, total.first_position)):
            total.first_sequence, total.first_position = found
            total.first_trainer, total.first_rollout = part.first_trainer, part.first_rollout
    return total
