"""Schulman's estimators of KL(policy || reference) from sampled tokens (joschu.net/blog/kl-approx.html)."""

from __future__ import annotations

import torch

from rlsync.config.algorithm import KlKind


def token_kl(logprobs: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, kind: KlKind) -> torch.Tensor:
    """With d = reference - policy log-prob: k1 = -d, k2 = d^2 / 2, k3 = e^d - d - 1. All [N]; 0 outside the mask."""
    d = torch.where(mask, reference - logprobs, 0.0)
    match kind:
        case KlKind.k1:
            return -d
        case KlKind.k2:
            return d.square() / 2
        case KlKind.k3:
            return torch.exp(d) - d - 1
