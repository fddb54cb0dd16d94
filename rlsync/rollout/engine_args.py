"""The arguments of a vLLM engine."""

from __future__ import annotations

import itertools
from typing import Any

from vllm import EngineArgs

from rlsync.config.cluster import Device
from rlsync.config.rollout import RolloutConfig
from rlsync.rollout.settings import EngineSettings
from rlsync.vllm_plugin.settings import PluginSettings

_EXTENSION = "rlsync.vllm_plugin.weights.WeightReceiver"
_CPU_SAMPLER = "rlsync.vllm_plugin.sampling:StatelessSampler"
_GPU_SAMPLER = "rlsync.vllm_plugin.gpu_sampling:RequestSeeds"
_LITTLE = 0.01
"""gpu_memory_utilization of an engine whose KV cache has a given size."""
_MIXED_GRAPH_TOKENS = 2048
"""Largest number of tokens of a CUDA graph; a step with more tokens takes long enough to hide its launches."""


def engine_args(settings: EngineSettings, *, kv_blocks: int | None = None, in_process: bool = True) -> EngineArgs:
    """Make the arguments of an engine. With kernels=native it is stock vLLM with rlsync's weight receiver.

    Args:
        settings: the settings of the engine.
        kv_blocks: size of the KV cache in blocks, in place of rollout.kv_cache_mib.
        in_process: with rollout.tp=1 the worker lives in this process and not in a child process.
    """
    rollout = settings.rollout
    cuda = settings.device is Device.cuda
    cuda_graphs = _cuda_graphs(rollout) if cuda and rollout.cuda_graphs else None
    common = _common(settings, in_process) | {
        "enforce_eager": cuda_graphs is None,
        "num_gpu_blocks_override": kv_blocks,
    }
    if settings.native:
        return EngineArgs(**common, logprobs_mode="processed_logprobs")
    plugin = PluginSettings(
        leaves=settings.leaves,
        row_parallel=settings.kernels.row_parallel.value,
        all_reduce=settings.kernels.all_reduce.value,
        temperature=rollout.temperature,
    )
    return EngineArgs(
        **common,
        quantization="rlsync",
        kernel_config={"ir_op_priority": {"rms_norm": ["rlsync"], "fused_add_rms_norm": ["rlsync"]}},  # type: ignore[arg-type]
        compilation_config={"mode": 0, "custom_ops": ["none"]} | (cuda_graphs or {}),  # type: ignore[arg-type]
        attention_backend="CUSTOM" if cuda else None,  # type: ignore[arg-type]
        logprobs_mode="raw_logits",
        logits_processors=[_GPU_SAMPLER if cuda else _CPU_SAMPLER],
        additional_config=plugin.as_additional_config(),
    )


def _common(settings: EngineSettings, in_process: bool) -> dict[str, Any]:
    """The arguments that exact and native engines share."""
    rollout = settings.rollout
    # vLLM requires this share of the memory to be free at its start, even if the size of the cache is given.
    share = _LITTLE if settings.device is Device.cuda and rollout.kv_cache_mib else rollout.gpu_memory_utilization
    return {
        "model": settings.model_path,
        "revision": settings.model.revision,
        "skip_tokenizer_init": True,
        "dtype": settings.model.dtype.value,
        "seed": 0,
        "tensor_parallel_size": rollout.tp,
        "distributed_executor_backend": "uni" if in_process and rollout.tp == 1 else "mp",
        "max_model_len": rollout.max_model_len,
        "max_num_seqs": rollout.max_num_seqs,
        "max_num_batched_tokens": rollout.max_num_batched_tokens,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": rollout.prefix_caching,
        "block_size": rollout.block_size,
        "kv_cache_memory_bytes": rollout.kv_cache_mib << 20 or None,
        "gpu_memory_utilization": share,
        "model_impl": rollout.model_impl.value,
        "worker_extension_cls": _EXTENSION,
        "enable_sleep_mode": rollout.sleep,
    }


def _cuda_graphs(rollout: RolloutConfig) -> dict[str, object]:
    """Settings of CUDA graphs: whole graphs for decode steps, and piecewise ones for steps with prefills.

    The sizes are close enough that padding a step to the next size costs little, and few enough that capturing the
    graphs does not take long.
    """
    largest = max(rollout.max_num_seqs, min(rollout.max_num_batched_tokens, _MIXED_GRAPH_TOKENS))
    grid = itertools.chain(
        (1, 2, 4, 8), range(16, 128, 16), range(128, 256, 32), range(256, 1024, 64), range(1024, largest, 128)
    )
    sizes = [*itertools.takewhile(lambda size: size < largest, grid), largest]
    return {"cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": sizes}
