"""The forward pass of a pack through a Hugging Face backbone, which policy and critic share."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from rlsync.config.kernels import KernelMode
from rlsync.kernels.row_ops import take_rows
from rlsync.models.native_attention import NATIVE_ATTENTION
from rlsync.pack import Pack


def hidden_states(model: PreTrainedModel, pack: Pack, mode: KernelMode) -> torch.Tensor:
    """Hidden states, after the last norm, of the rows that predict a pack's items.

    The sequences of a pack do not attend to each other.

    Args:
        model: a Hugging Face model, with rlsync's ops installed if `mode` is `invariant`.
        pack: the pack; with kernels=native it must be a plain one.
        mode: which kernels run.

    Returns:
        [N, hidden] in the compute dtype.
    """
    extra: dict[str, object] = {}
    if mode is KernelMode.invariant:
        extra = {"starts": pack.starts, "longest": pack.longest, "paths": pack.paths}
    elif model.config._attn_implementation == NATIVE_ATTENTION:
        extra = {"starts": pack.starts, "longest": pack.longest}
    out = model.base_model(input_ids=pack.tokens[None], position_ids=pack.positions[None], use_cache=False, **extra)
    return take_rows(out.last_hidden_state[0], pack.rows)
