"""The vLLM rollout engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.errors import ConfigError


class ModelImpl(StrEnum):
    vllm = "vllm"
    transformers = "transformers"


class WeightPath(StrEnum):
    auto = "auto"
    """Trainer ranks write straight into the workers' parameters where both are on GPUs of one host; messages
    elsewhere."""
    messages = "messages"
    """Buckets of tensors are gathered and sent: for hosts whose GPUs claim an access to each other that does not
    work."""


@dataclass(kw_only=True, slots=True)
class RolloutConfig:
    tp: int = 1
    """Tensor-parallel size: worker processes of one engine."""
    engines: int = 1
    temperature: float = 1.0
    """One temperature for the run: it is part of the policy, on both sides."""
    max_tokens: int = 256
    """Longest response."""
    max_model_len: int = 1024
    """Longest prompt plus response."""
    max_num_seqs: int = 128
    """Requests in flight in one engine."""
    max_num_batched_tokens: int = 2048
    """Tokens of one engine step; longer prompts are prefilled in chunks."""
    prefix_caching: bool = True
    block_size: int = 32
    kv_cache_mib: int = 64
    """KV cache of one worker; 0 = what gpu_memory_utilization leaves for it (GPUs only)."""
    gpu_memory_utilization: float = 0.5
    """Share of the GPU's memory for vLLM, weights included, where kv_cache_mib is 0."""
    sleep: bool = False
    """Colocated engines free their weights and KV cache while the trainer works; the next sync brings new weights."""
    cuda_graphs: bool = True
    """Decode steps run as whole CUDA graphs, mixed steps as pieces between the attention calls (GPUs only)."""
    weight_path: WeightPath = WeightPath.auto
    """How new weights reach the workers."""
    model_impl: ModelImpl = ModelImpl.vllm
    """`transformers` serves an architecture whose vLLM class fuses ops in its own way."""

    def __post_init__(self) -> None:
        if self.tp < 1 or self.engines < 1:
            raise ConfigError(f"rollout.tp={self.tp}, rollout.engines={self.engines}: both must be at least 1")
        if self.temperature <= 0:
            raise ConfigError(
                f"rollout.temperature={self.temperature}: must be positive (held-out evaluation is greedy by itself)"
            )
        if self.max_tokens < 1 or self.max_tokens >= self.max_model_len:
            raise ConfigError(
                f"rollout.max_tokens={self.max_tokens} leaves no room for a prompt within "
                f"rollout.max_model_len={self.max_model_len}"
            )
        if not 1 <= self.max_num_seqs <= self.max_num_batched_tokens:
            raise ConfigError(
                f"rollout.max_num_seqs={self.max_num_seqs}, "
                f"rollout.max_num_batched_tokens={self.max_num_batched_tokens}: want at least one request in flight, "
                "and a token for each of them in a step of the engine"
            )
        if self.block_size < 1 or self.block_size % 16:
            raise ConfigError(f"rollout.block_size={self.block_size}: must be a positive multiple of 16")
        if self.kv_cache_mib < 0 or not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(
                f"rollout.kv_cache_mib={self.kv_cache_mib}, "
                f"rollout.gpu_memory_utilization={self.gpu_memory_utilization}: want no negative size (0 = what the "
                "share leaves for it), and a share above 0 and at most 1"
            )
