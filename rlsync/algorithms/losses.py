"""Policy losses, summed over tokens; the caller divides by the global count (token mean, DAPO arXiv 2503.14476)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(slots=True)
class PolicyLoss:
    total: torch.Tensor
    """[] fp32, summed over the mask; carries the gradient."""
    clipped: int
    """Tokens whose gradient the clip cut off."""
    ratio_min: float
    ratio_max: float


def clipped_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """PPO's clipped surrogate (arXiv 1707.06347, eq. 7) with separate bounds. All arguments [T]."""
    ratio = torch.exp(torch.where(mask, logprobs - old_logprobs, 0.0))
    clipped_ratio = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped_ratio)
    cut = mask & (-advantages * clipped_ratio > -advantages * ratio)
    inside = ratio.detach()[mask]
    return PolicyLoss(
        total=torch.where(mask, loss, 0.0).sum(),
        clipped=int(cut.sum()),
        ratio_min=float(inside.min()) if inside.numel() else 1.0,
        ratio_max=float(inside.max()) if inside.numel() else 1.0,
    )


def k3_kl(logprobs: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Sum over the mask of Schulman's k3 estimator of KL(policy || reference): e^d - d - 1, d = reference - policy."""
    d = torch.where(mask, reference - logprobs, 0.0)
    return (torch.exp(d) - d - 1).sum()
