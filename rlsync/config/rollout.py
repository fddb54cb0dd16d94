"""Configuration of the vLLM rollout engines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.errors import ConfigError


class ModelImpl(StrEnum):
    """Which implementation of the model vLLM runs."""

    vllm = "vllm"
    """vLLM's own class of the architecture."""
    transformers = "transformers"
    """The class of transformers, run by vLLM."""


class WeightPath(StrEnum):
    """How new weights reach the workers."""

    auto = "auto"
    """Trainer ranks write straight into the workers' parameters where both are on GPUs of one host, and send messages
    elsewhere."""
    messages = "messages"
    """Buckets of tensors are gathered and sent: for hosts whose GPUs report a peer access that does not work."""


@dataclass(kw_only=True, slots=True)
class RolloutConfig:
    """Configuration of the rollout engines."""

    tp: int = 1
    """Tensor-parallel size: number of worker processes of one engine."""
    engines: int = 1
    """Number of engines; a step's requests are distributed over them."""
    temperature: float = 1.0
    """Sampling temperature. There is one for the whole run, because it is part of the policy on both sides."""
    max_tokens: int = 256
    """Longest response in tokens."""
    max_model_len: int = 1024
    """Longest sequence of prompt and response in tokens."""
    max_num_seqs: int = 128
    """Most requests in flight in one engine."""
    max_num_batched_tokens: int = 2048
    """Most tokens in one engine step; longer prompts are prefilled in chunks."""
    prefix_caching: bool = True
    """Requests with a common beginning share its keys and values. The cache is emptied after every weight sync;
    with exact kernels the bits stay the same."""
    block_size: int = 32
    """Number of tokens in a block of the KV cache; a multiple of 16."""
    kv_cache_mib: int = 64
    """Size in MiB of one worker's KV cache; 0 = what gpu_memory_utilization leaves for it (GPUs only)."""
    gpu_memory_utilization: float = 0.5
    """Share of the GPU's memory for vLLM, weights included; read where kv_cache_mib is 0."""
    sleep: bool = False
    """Colocated engines free their weights and KV cache while the trainer works; the next sync brings new weights."""
    cuda_graphs: bool = True
    """Decode steps run as full CUDA graphs, and mixed steps as piecewise graphs between attention calls (GPUs only)."""
    weight_path: WeightPath = WeightPath.auto
    """How new weights reach the workers."""
    model_impl: ModelImpl = ModelImpl.vllm
    """`transformers` serves an architecture whose vLLM class fuses ops in its own way."""

    def __post_init__(self) -> None:
        if self.tp < 1 or self.engines < 1:
            raise ConfigError(f"rollout.tp={self.tp}, rollout.engines={self.engines}: both must be at least 1")
        if self.temperature <= 0:
            raise ConfigError(
                f"rollout.temperature={self.temperature}: must be positive. Use 1.0; greedy evaluation ignores it."
            )
        if self.max_tokens < 1 or self.max_tokens >= self.max_model_len:
            raise ConfigError(
                f"rollout.max_tokens={self.max_tokens} leaves no room for a prompt within "
                f"rollout.max_model_len={self.max_model_len}"
            )
        if not 1 <= self.max_num_seqs <= self.max_num_batched_tokens:
            raise ConfigError(
                f"rollout.max_num_seqs={self.max_num_seqs}, "
                f"rollout.max_num_batched_tokens={self.max_num_batched_tokens}: max_num_seqs must be at least 1, and "
                "max_num_batched_tokens at least max_num_seqs, so that each request gets a token in a step"
            )
        if self.block_size < 1 or self.block_size % 16:
            raise ConfigError(f"rollout.block_size={self.block_size}: must be a positive multiple of 16")
        if self.kv_cache_mib < 0 or not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(
                f"rollout.kv_cache_mib={self.kv_cache_mib}, "
                f"rollout.gpu_memory_utilization={self.gpu_memory_utilization}: the size must not be negative (0 = "
                "what the share leaves for it), and the share must be above 0 and at most 1"
            )
