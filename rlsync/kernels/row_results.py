"""Results of rows of logits, as the kernels return them.

Shapes: T rows. Logits are not kept: what is needed of a row is made where the row is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class RowScores(NamedTuple):
    """The results of `row_scores`."""

    logprobs: torch.Tensor
    """[T] fp32: log-prob of each row's target."""
    entropy: torch.Tensor
    """[T] fp32: entropy of each row, in nats."""
    stats: torch.Tensor
    """[T, 2] fp32: with x = logits / temperature, the maximum of x and the logarithm of the sum of exp(x - maximum)."""
    digests: torch.Tensor
    """[T] int64: digest of the bits of each row's logits, as by `row_digests`."""
    draws: torch.Tensor | None
    """[T] int64: tokens that were drawn from the rows; None if none were asked for."""


class TargetScores(NamedTuple):
    """The results of `target_scores`; the first two are differentiable."""

    logprobs: torch.Tensor
    """[T] fp32: log-prob of each row's target."""
    entropy: torch.Tensor
    """[T] fp32: entropy of each row, in nats."""
    digests: torch.Tensor
    """[T] int64: digest of the bits of each row's logits, as by `row_digests`."""
    draws: torch.Tensor | None
    """[T] int64: tokens that were drawn from the rows; None if none were asked for."""


class DrawnTokens(NamedTuple):
    """The results of `draw_scored`."""

    tokens: torch.Tensor
    """[T] int64: the drawn tokens."""
    logprobs: torch.Tensor
    """[T] fp32: their log-probs."""
    digests: torch.Tensor
    """[T] int64: digest of the bits of each row's logits, as by `row_digests`."""
