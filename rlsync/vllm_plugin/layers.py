"""vLLM's rotary positions, gated activation and logits processor, on rlsync's ops."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.linear_scaling_rope import LinearScalingRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.llama3_rope import Llama3RotaryEmbedding
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from rlsync.errors import ConfigError
from rlsync.kernels import ops
from rlsync.kernels.rope import RopeSpec, rope_table
from rlsync.vllm_plugin.settings import current_settings


class InvariantSiluAndMul(SiluAndMul):
    """The gated activation, which computes with `ops.silu_and_mul`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., 2 N], gate and up side by side -> [..., N]."""
        gate, up = x.chunk(2, dim=-1)
        return ops.silu_and_mul(gate, up)


class _SharedTable:
    """A mix-in over vLLM's rotary embeddings, which takes the table that trainer and rollout share."""

    rotary_dim: int
    head_size: int
    cos_sin_cache: torch.Tensor

    def _spec(self) -> RopeSpec:
        raise NotImplementedError

    def _compute_cos_sin_cache(self) -> torch.Tensor:
        spec = self._spec()
        if spec.dim != self.head_size:
            raise ConfigError(
                f"rotary_dim={spec.dim}: the heads have {self.head_size} channels, and kernels=invariant rotates whole "
                "heads only. Use another model or kernels=native."
            )
        return rope_table(spec, torch.float32)  # vLLM rounds it to the compute dtype

    def forward(
        self, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Rotate queries and keys; the results have their shapes."""
        if key is None:
            raise ConfigError(
                "a rotary embedding of queries without keys is not supported by kernels=invariant; use another model "
                "or kernels=native"
            )
        positions = positions.flatten()
        heads = [x.view(positions.shape[0], -1, self.head_size) for x in (query, key)]
        q, k = ops.rope(*heads, self.cos_sin_cache, positions)  # type: ignore[call-arg]
        return q.view(query.shape), k.view(key.shape)


class InvariantRotary(_SharedTable, RotaryEmbedding):
    """Rotary positions without scaling."""

    def _spec(self) -> RopeSpec:
        return RopeSpec(self.rotary_dim, self.base, self.max_position_embeddings)


class InvariantLlama3Rotary(_SharedTable, Llama3RotaryEmbedding):
    """Rotary positions with the scaling of Llama 3."""

    def _spec(self) -> RopeSpec:
        return RopeSpec(
            self.rotary_dim,
            self.base,
            self.max_position_embeddings,
            self.scaling_factor,
            self.low_freq_factor,
            self.high_freq_factor,
            self.orig_max_position,
        )


class InvariantLinearScalingRotary(_SharedTable, LinearScalingRotaryEmbedding):
    """Rotary positions with linear scaling."""

    def _spec(self) -> RopeSpec:
        (factor,) = self.scaling_factors
        return RopeSpec(self.rotary_dim, self.base, self.max_position_embeddings, factor)


class LogprobsProcessor(LogitsProcessor):
    """Returns fp32 log-probs at the run's temperature in place of logits.

    On a GPU it returns this rank's columns of the logits, from which RowSampler (gpu_sampling.py) makes tokens and
    log-probs. With logprobs_mode=raw_logits vLLM reports the log-probs without changing them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.soft_cap is not None or self.scale != 1.0:
            raise ConfigError(
                "a model with a softcap or a scale of its logits is not supported by kernels=invariant; use another "
                "model or kernels=native"
            )
        self.temperature = current_settings().temperature
        self.digests: torch.Tensor | None = None
        """On a CPU the digest [T] int64 of each row of the latest logits, for RowDigestSampler."""

    def forward(
        self,
        lm_head: VocabParallelEmbedding,
        hidden_states: torch.Tensor,
        embedding_bias: torch.Tensor | None = None,
        skip_gather: bool = False,
    ) -> torch.Tensor | None:
        """Make fp32 log-probs [T, V], or on a GPU this rank's fp32 logits [T, V / tp], from hidden states [T, hidden].

        Returns None on ranks to which vLLM does not gather the logits.
        """
        on_gpu = hidden_states.is_cuda
        logits = super().forward(lm_head, hidden_states, embedding_bias, skip_gather or on_gpu)
        if logits is None or on_gpu:
            return logits
        self.digests = ops.row_digests(logits)
        return ops.logprobs(logits, self.temperature)
