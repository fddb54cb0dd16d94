"""Counts of differing bits on a set of tokens; counts of disjoint sets merge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class ParityCounts:
    """What the monitor saw on some tokens; counts of disjoint sets of tokens merge."""

    tokens_sampled: int = 0
    tokens_compared: int = 0
    tokens_left_out_stale: int = 0
    """Sampled at other weights than the forward pass holds."""
    tokens_different: int = 0
    draws_compared: int = 0
    draws_different: int = 0
    nonfinite: int = 0
    max_abs_diff: float = 0.0
    max_ulp: int = 0
    k3_sum: float = 0.0
    """Sum over compared tokens of e^d - d - 1, d = trainer - rollout, in nats."""
    first_sequence: int = -1
    """Sequence id of the first divergent token, -1 if none."""
    first_position: int = -1
    """Its position in the sequence."""
    first_trainer: float = 0.0
    first_rollout: float = 0.0


def merge(parts: list[ParityCounts]) -> ParityCounts:
    """Counts of disjoint sets of tokens; the first divergence is that of the lowest sequence id."""
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
