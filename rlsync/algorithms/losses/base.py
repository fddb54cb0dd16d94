"""The result of a policy loss, and parts that the losses share."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(slots=True, kw_only=True)
class PolicyLoss:
    """The policy loss of a pack's N items, and its statistics."""

    per_token: torch.Tensor
    """[N] in the log-probs' dtype, with a gradient; 0 outside the mask. The caller weights and sums it."""
    clipped: int
    """Number of tokens in the mask whose gradient the clip cut off or bounded."""
    ratio_min: float
    """Smallest importance ratio in the mask; 1 if the mask is empty."""
    ratio_max: float
    """Largest importance ratio in the mask; 1 if the mask is empty."""


def log_ratio(logprobs: torch.Tensor, old_logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[N]: logarithms of the importance ratios; 0 outside the mask, also if a log-prob there is NaN."""
    return torch.where(mask, logprobs - old_logprobs, 0.0)


def make_loss(per_token: torch.Tensor, cut: torch.Tensor, ratio: torch.Tensor, mask: torch.Tensor) -> PolicyLoss:
    """Make the result of a policy loss.

    Args:
        per_token: [N], the loss of each item.
        cut: [N] bool, the items whose gradient the clip cut off or bounded.
        ratio: [N], importance ratios.
        mask: [N] bool, the items that are trained on.
    """
    inside = ratio.detach()[mask]
    return PolicyLoss(
        per_token=torch.where(mask, per_token, 0.0),
        clipped=int((mask & cut).sum()),
        ratio_min=float(inside.min()) if inside.numel() else 1.0,
        ratio_max=float(inside.max()) if inside.numel() else 1.0,
    )
