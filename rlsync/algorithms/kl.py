"""Estimators of KL(policy || reference) from sampled tokens by J. Schulman (joschu.net/blog/kl-approx.html)."""

from __future__ import annotations

import torch

from rlsync.config.algorithm import KlKind


def token_kl(logprobs: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, kind: KlKind) -> torch.Tensor:
    """Estimate the KL at each token. With d = reference - policy log-prob: k1 = -d, k2 = d^2 / 2, k3 = e^d - d - 1.

    Args:
        logprobs: [N], log-probs of the policy.
        reference: [N], log-probs of the reference.
        mask: [N] bool.
        kind: the estimator.

    Returns:
        [N]; 0 outside the mask.
    """
    d = torch.where(mask, reference - logprobs, 0.0)
    match kind:
        case KlKind.k1:
            return -d
        case KlKind.k2:
            return d.square() / 2
        case KlKind.k3:
            return torch.exp(d) - d - 1
