"""Policy losses by name. A new loss is a file in this folder, an entry in LOSSES and a value of LossKind."""

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
"""A policy loss: (log-probs [N], log-probs at the weights that sampled [N], pack, config) -> PolicyLoss."""

LOSSES: dict[LossKind, Loss] = {LossKind.ppo_clip: ppo_clip, LossKind.gspo: gspo, LossKind.cispo: cispo}
"""The policy loss for each value of algorithm.loss."""

__all__ = ["LOSSES", "Loss", "PolicyLoss"]
