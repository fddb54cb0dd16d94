"""Generalised advantage estimation (GAE): advantages of tokens from their rewards and a critic's values."""

from __future__ import annotations

import torch

_EPS = 1e-6


def gae(rewards: torch.Tensor, values: torch.Tensor, *, gamma: float, gae_lambda: float) -> torch.Tensor:
    """GAE (arXiv 1506.02438, eq. 16): A_t = d_t + gamma lambda A_(t+1), d_t = r_t + gamma V_(t+1) - V_t.

    V and A are 0 after the last token, so a shorter sequence may be padded with zeros, whose advantages are 0.

    Args:
        rewards: [..., N] float64, the reward of each token.
        values: [..., N] float64, the critic's value of the text before each token.
        gamma: discount of later rewards.
        gae_lambda: weight of later differences, from 0 to 1.

    Returns:
        [..., N] float64, the advantages.
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
    """Normalise advantages [N] to (a - mean) / (std + 1e-6). Equal advantages give exactly 0."""
    if advantages.amax() == advantages.amin():
        return torch.zeros_like(advantages)
    return (advantages - advantages.mean()) / (advantages.std() + _EPS)


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 - var(returns - values) / var(returns), both [N].

    It is 1 for a perfect critic, and 0 for a constant one or if all returns are equal.
    """
    spread = returns.var(correction=0)
    return float(1 - (returns - values).var(correction=0) / spread) if spread > 0 else 0.0
