"""Generalised advantage estimation: advantages of tokens from their rewards and a critic's values."""

from __future__ import annotations

import torch

_EPS = 1e-6


def gae(rewards: torch.Tensor, values: torch.Tensor, *, gamma: float, gae_lambda: float) -> torch.Tensor:
    """GAE (arXiv 1506.02438, eq. 16): A_t = d_t + gamma lambda A_(t+1), d_t = r_t + gamma V_(t+1) - V_t.

    After the last token both V and A are 0, so zeros may follow a shorter sequence and get 0 themselves.

    Args:
        rewards: [..., N] float64, got with token t.
        values: [..., N] float64, of what token t was sampled after.
    Returns:
        [..., N] float64.
    """
    following = torch.nn.functional.pad(values[..., 1:], (0, 1))
    surprises = rewards + gamma * following - values
    advantages = torch.zeros_like(surprises)
    carried = torch.zeros_like(surprises[..., 0])
    for t in reversed(range(surprises.shape[-1])):
        carried = surprises[..., t] + gamma * gae_lambda * carried
        advantages[..., t] = carried
    return advantages


def whiten(advantages: torch.Tensor) -> torch.Tensor:
    """[N] -> [N]: (a - mean) / (std + 1e-6). Equal ones give exactly 0."""
    if advantages.amax() == advantages.amin():
        return torch.zeros_like(advantages)
    return (advantages - advantages.mean()) / (advantages.std() + _EPS)


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 - var(returns - values) / var(returns), both [N]: 1 for a perfect critic, 0 for a constant one.

    0 where all returns are equal.
    """
    spread = returns.var(correction=0)
    return float(1 - (returns - values).var(correction=0) / spread) if spread > 0 else 0.0
