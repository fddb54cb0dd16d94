"""The critic's loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlsync.pack import Pack


@dataclass(slots=True, kw_only=True)
class ValueLoss:
    total: torch.Tensor
    """[]: summed over the pack's tokens, carries the gradient; to be divided by the minibatch's tokens."""
    clipped: int
    """Tokens whose gradient the clip cut off."""


def value_loss(values: torch.Tensor, pack: Pack, clip: float) -> ValueLoss:
    """max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) / 2 at the sampled tokens.

    The clip, 0 = off, is that of PPO's first implementation (github.com/openai/baselines, ppo2); the paper, arXiv
    1707.06347 (eq. 9), has the plain square.

    Args:
        values: [N] of the critic that is trained.
        pack: with old_values and returns.
    """
    assert pack.old_values is not None
    assert pack.returns is not None
    old, returns = pack.old_values, pack.returns
    values = torch.where(pack.trained, values, old)  # whatever the other items hold, it has no gradient
    free = (values - returns).square()
    bounded = (old + (values - old).clamp(-clip, clip) - returns).square() if clip else free
    loss = torch.where(pack.trained, torch.maximum(free, bounded) / 2, 0.0)
    return ValueLoss(total=loss.sum(), clipped=int((pack.trained & (bounded > free)).sum()))
