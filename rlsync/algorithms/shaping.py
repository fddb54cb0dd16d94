"""Shaping of rewards before advantages are computed."""

from __future__ import annotations

import torch


def overlong_reward(lengths: torch.Tensor, *, max_tokens: int, buffer: int, penalty: float) -> torch.Tensor:
    """Soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13).

    It is 0 up to a length of max_tokens - buffer, and then falls linearly to -penalty at max_tokens.

    Args:
        lengths: [...], number of sampled tokens of each response, in any dtype of numbers.
        max_tokens: largest number of tokens of a response.
        buffer: length of the range in which the punishment grows, 1 <= buffer <= max_tokens.
        penalty: the punishment at max_tokens.

    Returns:
        [...] float64, what is added to each reward.
    """
    over = lengths.to(torch.float64) - (max_tokens - buffer)
    return -penalty * (over / buffer).clamp(0, 1)
