"""A pack through a Hugging Face backbone: what policy and critic have in common."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from rlsync.config.kernels import KernelMode
from rlsync.types import Pack


def hidden_states(model: PreTrainedModel, pack: Pack, mode: KernelMode) -> torch.Tensor:
    """[T, hidden] in the model's dtype, after the last norm; sequences of the pack do not see each other."""
    extra = {"starts": pack.starts, "longest": pack.longest} if mode is KernelMode.invariant else {}
    out = model.base_model(input_ids=pack.tokens[None], position_ids=pack.positions[None], use_cache=False, **extra)
    return out.last_hidden_state[0]
