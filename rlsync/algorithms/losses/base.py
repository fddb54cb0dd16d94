"""What every policy loss returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(slots=True, kw_only=True)
class PolicyLoss:
    per_token: torch.Tensor
    """[N], the log-probs' dtype; 0 outside the mask. Carries the gradient; the caller weighs and adds up."""
    clipped: int
    """Tokens in the mask whose gradient the clip cut off or bounded."""
    ratio_min: float
    ratio_max: float


def log_ratio(logprobs: torch.Tensor, old_logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[N]; 0 outside the mask, whatever is there."""
    return torch.where(mask, logprobs - old_logprobs, 0.0)


def make_loss(per_token: torch.Tensor, cut: torch.Tensor, ratio: torch.Tensor, mask: torch.Tensor) -> PolicyLoss:
    """From item-wise loss, what the clip reached, and ratio, all [N]."""
    inside = ratio.detach()[mask]
    return PolicyLoss(
        per_token=torch.where(mask, per_token, 0.0),
        clipped=int((mask & cut).sum()),
        ratio_min=float(inside.min()) if inside.numel() else 1.0,
        ratio_max=float(inside.max()) if inside.numel() else 1.0,
    )
