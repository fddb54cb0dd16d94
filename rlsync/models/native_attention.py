"""PyTorch's flash attention over packs, for kernels=native on a GPU: sdpa would read a dense mask of [T, T] there."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from rlsync.models.install import SUPPORTED_CRITICS, head_dim

NATIVE_ATTENTION = "rlsync_native"
_AMPERE = (8, 0)
"""The oldest compute capability that PyTorch's flash attention runs on."""
_HEAD_DIMS = range(8, 193, 8)
"""That its backward has on every such GPU."""


def packed_flash_forward(
    module: nn.Module,
    query: torch.Tensor,  # [1, Hq, T, D]
    key: torch.Tensor,  # [1, Hkv, T, D]
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    *,
    starts: torch.Tensor,
    longest: int,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface over a plain pack, as `packed_attention_forward`."""
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    bounds = starts.to(torch.int32)
    left = sliding_window - 1 if sliding_window else -1
    out = torch.ops.aten._flash_attention_forward(
        q, k, v, bounds, bounds, longest, longest, 0.0, True, False,
        scale=scaling, window_size_left=left, window_size_right=0,
    )[0]  # fmt: skip
    return out[None], None


def use_flash(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Make `model` attend by `packed_flash_forward` where that can run; elsewhere it keeps what it has.

    Args:
        model: a causal LM or a sequence classifier, before `fully_shard`.
        device, dtype: that it will compute on and in.
    """
    if not _suits(model, device, dtype):
        return
    AttentionInterface.register(NATIVE_ATTENTION, packed_flash_forward)
    AttentionMaskInterface.register(NATIVE_ATTENTION, lambda *args, **kwargs: None)
    model.set_attn_implementation(NATIVE_ATTENTION)


def _suits(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> bool:
    config = model.config
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= _AMPERE
        and dtype is torch.bfloat16
        and type(model).__name__ in SUPPORTED_CRITICS
        and head_dim(config) in _HEAD_DIMS
        and not config.attention_dropout
    )
