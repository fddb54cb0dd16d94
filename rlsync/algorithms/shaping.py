"""What is added to a reward before advantages."""

from __future__ import annotations

import torch


def overlong_reward(lengths: torch.Tensor, *, max_tokens: int, buffer: int, penalty: float) -> torch.Tensor:
    """Soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13).

    0 up to max_tokens - buffer, then down in a straight line to -penalty at max_tokens.

    Args:
        lengths: [...] sampled tokens of each response, any number dtype.
        buffer: tokens, 1 <= buffer <= max_tokens.
    Returns:
        [...] float64.
    """
    over = lengths.to(torch.float64) - (max_tokens - buffer)
    return -penalty * (over / buffer).clamp(0, 1)
