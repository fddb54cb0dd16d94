"""Registers rlsync's layers with vLLM."""

from __future__ import annotations

from vllm.model_executor.custom_op import CustomOp, PluggableLayer, op_registry_oot
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.linear import LinearBase, RowParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbeddingBase
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

from rlsync.errors import ConfigError
from rlsync.vllm_plugin import layers, norms
from rlsync.vllm_plugin.attention import CudaPagedAttentionBackend, PagedAttentionBackend
from rlsync.vllm_plugin.compat import vllm_version
from rlsync.vllm_plugin.linear import (
    InvariantEmbeddingMethod,
    InvariantLinearMethod,
    InvariantQuantizationConfig,
    InvariantRowParallelLinear,
)

QUANTIZATION = "rlsync"
"""Name of the no-op quantization config through which vLLM uses rlsync's linear layers."""

_LAYERS: dict[str, type[PluggableLayer] | type[CustomOp]] = {  # vLLM's name of a layer -> rlsync's class
    "RowParallelLinear": InvariantRowParallelLinear,
    "LogitsProcessor": layers.LogprobsProcessor,
    "SiluAndMul": layers.InvariantSiluAndMul,
    "RotaryEmbedding": layers.InvariantRotary,
    "LinearScalingRotaryEmbedding": layers.InvariantLinearScalingRotary,
    "Llama3RotaryEmbedding": layers.InvariantLlama3Rotary,
}


def install() -> None:
    """Replace vLLM's ops of the supported models by rlsync's; a second call does nothing.

    Raises:
        ConfigError: rlsync does not support the installed vLLM.
    """
    if "RowParallelLinear" in op_registry_oot:
        return
    vllm_version()
    register_quantization_config(QUANTIZATION)(InvariantQuantizationConfig)
    for name, layer in _LAYERS.items():
        op_registry_oot[name] = layer
    norms.register()
    # The CPU platform always uses CPU_ATTN, so that member is overridden, as vLLM documents.
    for member, backend in (
        (AttentionBackendEnum.CPU_ATTN, PagedAttentionBackend),
        (AttentionBackendEnum.CUSTOM, CudaPagedAttentionBackend),
    ):
        register_backend(member, f"{backend.__module__}.{backend.__qualname__}")


def check_installed(model: object) -> None:
    """Check that no floating-point layer of a built model is vLLM's own.

    Raises:
        ConfigError: there is such a layer.
    """
    stock = []
    for name, module in model.named_modules():  # type: ignore[attr-defined]
        match module:
            case RowParallelLinear():
                ok = isinstance(module, InvariantRowParallelLinear)
            case LinearBase():
                ok = isinstance(module.quant_method, InvariantLinearMethod)
            case VocabParallelEmbedding():
                ok = isinstance(module.quant_method, InvariantEmbeddingMethod)
            case RotaryEmbeddingBase() | SiluAndMul() | LogitsProcessor():
                ok = isinstance(module, tuple(_LAYERS.values()))
            case _:
                ok = True
        if not ok:
            stock.append(f"{name} ({type(module).__name__})")
    if stock:
        raise ConfigError(
            f"the rlsync plugin is not active in a rollout worker, which uses vLLM's own layers: {', '.join(stock[:5])}"
        )
