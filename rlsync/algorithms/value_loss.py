"""The critic's loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlsync.pack import Pack


@dataclass(slots=True, kw_only=True)
class ValueLoss:
    """The critic's loss on a pack, and its statistics."""

    total: torch.Tensor
    """[]: the sum over the pack's tokens, with a gradient; to be divided by the number of tokens of the minibatch."""
    clipped: int
    """Number of tokens whose gradient the clip cut off."""


def value_loss(values: torch.Tensor, pack: Pack, clip: float) -> ValueLoss:
    """The sum of max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) / 2 over the tokens that are trained on.

    The clip is that of PPO's first implementation (github.com/openai/baselines, ppo2). The paper (arXiv 1707.06347,
    eq. 9) has the plain square.

    Args:
        values: [N], values of the critic that is trained.
        pack: the pack, which must have old_values and returns.
        clip: bound of the clip; 0 turns it off.
    """
    assert pack.old_values is not None
    assert pack.returns is not None
    old, returns = pack.old_values, pack.returns
    values = torch.where(pack.trained, values, old)  # the other items get no gradient
    free = (values - returns).square()
    bounded = (old + (values - old).clamp(-clip, clip) - returns).square() if clip else free
    loss = torch.where(pack.trained, torch.maximum(free, bounded) / 2, 0.0)
    return ValueLoss(total=loss.sum(), clipped=int((pack.trained & (bounded > free)).sum()))
