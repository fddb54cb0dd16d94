"""The objective of one pack: the weighted sum over its tokens of policy loss, correction, KL and entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlsync.algorithms.aggregation import token_weights
from rlsync.algorithms.kl import token_kl
from rlsync.algorithms.losses import LOSSES, PolicyLoss
from rlsync.config.algorithm import AlgorithmConfig
from rlsync.pack import Pack, PolicyOutput


@dataclass(slots=True, kw_only=True)
class Objective:
    """The objective of a pack, and its statistics."""

    total: torch.Tensor
    """[]: the weighted sum over the pack's tokens, with a gradient; to be divided by `aggregation.denominator`."""
    policy: PolicyLoss
    """The policy loss."""
    kl_sum: float
    """Sum of the KL estimates in the loss, over the tokens that are trained on."""
    truncated: int
    """Number of tokens whose importance weight exceeded tis_cap."""


def objective(
    output: PolicyOutput, pack: Pack, config: AlgorithmConfig, *, reference: torch.Tensor | None = None
) -> Objective:
    """Sum over tokens of weight * (correction * loss + kl_coef * KL - entropy_coef * entropy).

    Args:
        output: results of the policy that is trained.
        pack: the pack that it has forwarded.
        config: the policy loss and the coefficients.
        reference: [N], log-probs of the reference if the KL is a part of the loss, else None.
    """
    mask, logprobs = pack.trained, output.logprobs
    old = pack.rollout_logprobs if pack.old_logprobs is None else pack.old_logprobs
    policy = LOSSES[config.loss](logprobs, old, pack, config)
    per_token, kl_sum, truncated = policy.per_token, 0.0, 0
    if config.tis_cap:
        correction = torch.exp(torch.where(mask, old - pack.rollout_logprobs, 0.0))
        per_token = per_token * correction.clamp(max=config.tis_cap)
        truncated = int((correction > config.tis_cap).sum())
    if reference is not None:
        kl = token_kl(logprobs, reference, mask, config.kl)
        per_token = per_token + config.kl_coef * kl
        kl_sum = float(kl.detach().sum())
    if config.entropy_coef:
        per_token = per_token - config.entropy_coef * torch.where(mask, output.entropy, 0.0)
    weights = token_weights(pack, config.aggregation, logprobs.dtype)
    return Objective(total=(weights * per_token).sum(), policy=policy, kl_sum=kl_sum, truncated=truncated)
