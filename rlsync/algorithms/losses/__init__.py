"""Policy losses by name. A new one is a file here, an entry in LOSSES and a LossKind."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rlsync.algorithms.losses.base import PolicyLoss
from rlsync.algorithms.losses.cispo import cispo
from rlsync.algorithms.losses.gspo import gspo
from rlsync.algorithms.losses.ppo_clip import ppo_clip
from rlsync.config.algorithm import AlgorithmConfig, LossKind
from rlsync.pack import Pack

Loss = Callable[[torch.Tensor, torch.Tensor, Pack, AlgorithmConfig], PolicyLoss]
"""(log-probs [N], those at the sampler's weights [N], pack, config) -> loss."""

LOSSES: dict[LossKind, Loss] = {LossKind.ppo_clip: ppo_clip, LossKind.gspo: gspo, LossKind.cispo: cispo}

__all__ = ["LOSSES", "Loss", "PolicyLoss"]
