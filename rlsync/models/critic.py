"""The critic: a Hugging Face backbone with a value head, as one module that returns a value for each item of a pack."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from rlsync.config.kernels import KernelMode
from rlsync.kernels import ops
from rlsync.models.backbone import hidden_states
from rlsync.models.install import install
from rlsync.pack import Pack


class Critic(nn.Module):
    """A backbone with a value head. This module is the FSDP root.

    Args:
        model: a sequence classifier with one label and fp32 master weights (`load_critic`), before `fully_shard`.
        mode, leaves, dtype: as for `Policy`.
    """

    def __init__(self, model: PreTrainedModel, *, mode: KernelMode, leaves: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.mode = mode
        if mode is KernelMode.invariant:
            install(model, leaves=leaves, dtype=dtype)

    def forward(self, pack: Pack) -> torch.Tensor:
        """[N] float32: the value of the text before each item."""
        hidden, weight = hidden_states(self.model, pack, self.mode), self.model.get_parameter("score.weight")
        if self.mode is KernelMode.invariant:
            return ops.lm_head(hidden, weight)[:, 0]
        return nn.functional.linear(hidden.float(), weight.float())[:, 0]
