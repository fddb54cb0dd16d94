"""A pack through a Hugging Face backbone: what policy and critic have in common."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from rlsync.config.kernels import KernelMode
from rlsync.kernels.row_ops import take_rows
from rlsync.models.native_attention import NATIVE_ATTENTION
from rlsync.pack import Pack


def hidden_states(model: PreTrainedModel, pack: Pack, mode: KernelMode) -> torch.Tensor:
    """[N, hidden] in the model's dtype, after the last norm, of the rows that predict the pack's items.

    Sequences of the pack do not see each other; with kernels=native it must be a plain one.
    """
    extra: dict[str, object] = {}
    if mode is KernelMode.invariant:
        extra = {"starts": pack.starts, "longest": pack.longest, "paths": pack.paths}
    elif model.config._attn_implementation == NATIVE_ATTENTION:
        extra = {"starts": pack.starts, "longest": pack.longest}
    out = model.base_model(input_ids=pack.tokens[None], position_ids=pack.positions[None], use_cache=False, **extra)
    return take_rows(out.last_hidden_state[0], pack.rows)
