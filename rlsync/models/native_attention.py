"""PyTorch's flash attention over packs, for kernels=native on a GPU, where SDPA would need a dense mask [T, T]."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from rlsync.models.install import SUPPORTED_CRITICS, head_dim

NATIVE_ATTENTION = "rlsync_native"
"""Name of the attention implementation in transformers."""
_AMPERE = (8, 0)
"""The lowest compute capability on which PyTorch's flash attention runs."""
_HEAD_DIMS = range(8, 193, 8)
"""Head sizes for which PyTorch's flash attention has a backward pass on all of these GPUs."""


def packed_flash_forward(
    module: nn.Module,  # noqa: ARG001 (transformers fixes the arguments)
    query: torch.Tensor,  # [1, Hq, T, D]
    key: torch.Tensor,  # [1, Hkv, T, D]
    value: torch.Tensor,
    attention_mask: None,  # noqa: ARG001
    scaling: float,
    dropout: float = 0.0,  # noqa: ARG001 (0 in every model that `use_flash` accepts)
    sliding_window: int | None = None,
    *,
    starts: torch.Tensor,
    longest: int,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Flash attention over a plain pack, as an attention function of transformers, like `packed_attention_forward`."""
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    bounds = starts.to(torch.int32)
    left = sliding_window - 1 if sliding_window else -1
    out = torch.ops.aten._flash_attention_forward(
        q, k, v, bounds, bounds, longest, longest, 0.0, True, False,
        scale=scaling, window_size_left=left, window_size_right=0,
    )[0]  # fmt: skip
    return out[None], None


def use_flash(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Let a model use `packed_flash_forward` if that can run; otherwise the model keeps its attention.

    Args:
        model: a causal LM or a sequence classifier, before `fully_shard`; it is changed in place.
        device, dtype: the device and the dtype in which the model will compute.
    """
    if not _suits(model, device, dtype):
        return
    AttentionInterface.register(NATIVE_ATTENTION, packed_flash_forward)
    AttentionMaskInterface.register(NATIVE_ATTENTION, lambda *_, **__: None)  # attention needs no mask tensor
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
