"""vLLM's attention on rlsync's paged kernels. Only this file knows the layout of vLLM's KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from vllm.platforms.interface import DeviceCapability
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionCGSupport,
    AttentionImpl,
    AttentionMetadataBuilder,
    AttentionType,
    CommonAttentionMetadata,
    MultipleOf,
)
from vllm.v1.kv_cache_interface import KVCacheLayout

from rlsync.errors import ConfigError
from rlsync.kernels import ops


@dataclass(slots=True)
class PagedMetadata:
    """The S sequences and T new tokens of an engine's step."""

    num_tokens: int
    """Number of new tokens T."""
    decodes: int
    """Number of leading sequences with one new token each, which vLLM puts first; in a CUDA graph the last of them may
    be padding."""
    starts: torch.Tensor
    """[S - decodes + 1]: offsets of the other sequences' new tokens, from the first such token."""
    lengths: torch.Tensor
    """[S]: number of tokens of each sequence, including the new ones."""
    table: torch.Tensor
    """[S, pages] int32: the blocks of each sequence."""
    slots: torch.Tensor
    """[T]: place of each new token in the cache, block * block_size + offset."""


class PagedMetadataBuilder(AttentionMetadataBuilder[PagedMetadata]):
    """Makes `PagedMetadata` from vLLM's own metadata."""

    _cudagraph_support = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(
        self,
        common_prefix_len: int,  # noqa: ARG002 (vLLM fixes the arguments, here and below)
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,  # noqa: ARG002
    ) -> PagedMetadata:
        """The metadata of one step."""
        common = common_attn_metadata
        if common.max_query_len == 1 and common.num_actual_tokens == common.num_reqs:
            decodes, starts = common.num_reqs, common.query_start_loc
        else:
            alone = common.query_start_loc_cpu.diff() == 1
            decodes = int(alone.cumprod(0).sum())
            starts = common.query_start_loc[decodes:] - decodes
        return PagedMetadata(
            num_tokens=common.num_actual_tokens,
            decodes=decodes,
            starts=starts,
            lengths=common.seq_lens,
            table=common.block_table_tensor,
            slots=common.slot_mapping,
        )


class PagedAttentionImpl(AttentionImpl[PagedMetadata]):  # type: ignore[type-var]
    """The attention of one layer. A model with features that exact kernels lack raises ConfigError."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: torch.Tensor | None = None,
    ) -> None:
        unsupported = {
            "ALiBi": alibi_slopes is not None,
            "an attention softcap": bool(logits_soft_cap),
            "attention sinks": sinks is not None,
            f"attention type {attn_type}": attn_type != AttentionType.DECODER,
            f"KV cache dtype {kv_cache_dtype}": kv_cache_dtype not in ("auto", "bfloat16", "float32"),
            "KV sharing across layers": kv_sharing_target_layer_name is not None,
        }
        for what, present in unsupported.items():
            if present:
                raise ConfigError(f"{what} is not supported by kernels=invariant; use another model or kernels=native")
        self.num_heads, self.head_size, self.num_kv_heads = num_heads, head_size, num_kv_heads
        self.scale = float(scale)
        self.window = sliding_window or 0

    def forward(
        self,
        layer: torch.nn.Module,  # type: ignore[override]  # noqa: ARG002
        query: torch.Tensor,  # [T, Hq, D]
        key: torch.Tensor,  # [T, Hkv, D]
        value: torch.Tensor,
        kv_cache: torch.Tensor,  # [blocks, Hkv, block, 2D]
        attn_metadata: PagedMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,  # noqa: ARG002
        output_block_scale: torch.Tensor | None = None,  # noqa: ARG002
    ) -> torch.Tensor:
        """Write the new keys and values into the cache, and the attention of the new tokens into `output`."""
        if attn_metadata is None:  # vLLM's warm-up
            return output
        meta, n = attn_metadata, attn_metadata.num_tokens
        ops.write_cache(key[:n], value[:n], kv_cache, meta.slots[:n])
        d = meta.decodes
        if d:
            ops.decode_attention(
                query[:d], kv_cache, meta.table[:d], meta.lengths[:d], self.scale, self.window, output[:d]
            )
        if d < n:
            ops.paged_attention(
                query[d:n], kv_cache, meta.table[d:], meta.starts, meta.lengths[d:], self.scale, self.window,
                output[d:n],
            )  # fmt: skip
        return output


class PagedAttentionBackend(AttentionBackend):
    """The backend for CPUs. It is named CPU_ATTN, because vLLM's CPU platform always uses the backend of that name."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.bfloat16, torch.float32]
    forward_includes_kv_cache_update = True

    @staticmethod
    def get_name() -> str:
        """The name under which vLLM knows the backend."""
        return "CPU_ATTN"

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: Any = None) -> list[int | MultipleOf]:  # noqa: ARG004
        """Block sizes of the KV cache: multiples of 16 tokens."""
        return [MultipleOf(16)]

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        """Layouts of the KV cache: in each layer blocks, heads, tokens and channels, in that order."""
        return (KVCacheLayout.LBHNC,)

    @classmethod
    def supports_sliding_window(cls) -> bool:
        """Whether the kernels support a sliding window: they do."""
        return True

    @staticmethod
    def get_impl_cls() -> type[PagedAttentionImpl]:
        """The class of a layer's attention."""
        return PagedAttentionImpl

    @staticmethod
    def get_builder_cls() -> type[PagedMetadataBuilder]:
        """The class that makes the metadata of a step."""
        return PagedMetadataBuilder


class CudaPagedAttentionBackend(PagedAttentionBackend):
    """The backend for GPUs."""

    @staticmethod
    def get_name() -> str:
        """The name under which vLLM knows the backend."""
        return "CUSTOM"

    @classmethod
    def supports_compute_capability(cls, capability: DeviceCapability) -> bool:
        """Whether the kernels run on GPUs of this compute capability: from 8.0 on."""
        return capability >= DeviceCapability(8, 0)
