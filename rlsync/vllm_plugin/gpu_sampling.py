"""Stateless sampling in vLLM's GPU model runner (V2). Tensor-parallel ranks draw without gathering the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.distributed import get_tp_group
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.worker.gpu.buffer_utils import StagedWriteTensor
from vllm.v1.worker.gpu.input_batch import InputBatch, get_num_sampled_and_rejected
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcessor, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.sample.sampler import Sampler

from rlsync.kernels.tp_sampling import draw_across
from rlsync.vllm_plugin.requests import GREEDY_KEY, SEED_KEY, check_params
from rlsync.vllm_plugin.settings import settings_of


class RequestSeeds(LogitsProcessor):
    """Keeps what the draws of each request depend on: its seed, and whether it is greedy.

    To vLLM it is a logits processor. vLLM makes its logits processors right before its sampler, so the constructor can
    replace the sampler.
    """

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse requests that the trainer could not draw again; raises ValueError."""
        check_params(sampling_params)

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:  # noqa: ARG002
        self.seeds = StagedWriteTensor(req_states.max_num_reqs, torch.int64, req_states.device)
        self._greedy = StagedWriteTensor(req_states.max_num_reqs, torch.int32, req_states.device)
        self._greedy_host = np.zeros(req_states.max_num_reqs, dtype=bool)
        _install_sampler()

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Keep the seed of a new request in slot `req_idx`; True, because this processor acts on every request."""
        extra = sampling_params.extra_args or {}
        greedy = bool(extra.get(GREEDY_KEY, False))
        self.seeds.stage_write_elem(req_idx, extra.get(SEED_KEY, 0))  # vLLM's own warm-up requests have none
        self._greedy.stage_write_elem(req_idx, int(greedy))
        self._greedy_host[req_idx] = greedy
        return True

    def apply_staged_writes(self) -> None:
        """Copy the values of new requests to the GPU."""
        self.seeds.apply_write()
        self._greedy.apply_write()

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:  # noqa: ARG002 (vLLM's interface)
        """Raise RuntimeError: only a stock sampler of vLLM calls this."""
        raise RuntimeError("vLLM does not use rlsync's sampler, and its own would read only a part of the logits")

    def greedy(self, slots: np.ndarray) -> torch.Tensor | None:
        """Whether the request in each slot is greedy, [slots] bool; None if no request in `slots` is."""
        return self._greedy.gpu.bool() if self._greedy_host[slots].any() else None


class RowSampler(Sampler):
    """The sampler that replaces vLLM's. It reads this rank's columns of the logits."""

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(vllm_config, *args, **kwargs)
        self._temperature = settings_of(vllm_config).temperature
        self._vocabulary = vllm_config.model_config.get_vocab_size()
        (self._requests,) = (p for p in self.logits_processors if isinstance(p, RequestSeeds))

    def __call__(self, logits: torch.Tensor, input_batch: InputBatch) -> SamplerOutput:
        """Draw a token for each row of this rank's logits [T, V / tp] (collective over the tensor-parallel ranks)."""
        slots = input_batch.expanded_idx_mapping
        greedy = self._requests.greedy(input_batch.idx_mapping_np)
        drawn = draw_across(
            logits,
            get_tp_group().device_group,
            self._vocabulary,
            self._temperature,
            self._requests.seeds.gpu[slots],
            input_batch.positions[input_batch.logits_indices],
            None if greedy is None else greedy[slots],
        )
        # A prompt that is not prefilled to its end yet gives no token.
        num_sampled, num_rejected = get_num_sampled_and_rejected(
            input_batch.seq_lens.new_ones(input_batch.num_reqs), input_batch.seq_lens, input_batch.cu_num_logits,
            input_batch.idx_mapping, self.req_states.prefill_len.gpu,
        )  # fmt: skip
        ids = drawn.tokens[:, None]
        return SamplerOutput(
            sampled_token_ids=ids,
            # vLLM passes on an int64 for each token, the rank of its log-prob. Here it is the digest of the row.
            logprobs_tensors=LogprobsTensors(ids, drawn.logprobs[:, None], drawn.digests),
            num_nans=None,
            num_sampled=num_sampled,
            num_rejected=num_rejected,
        )


def _install_sampler() -> None:
    """Replace the sampler of vLLM's model runner; raises AttributeError if this vLLM gives it another name."""
    from vllm.v1.worker.gpu import model_runner  # imports a large part of vLLM, which only workers need

    assert issubclass(RowSampler, model_runner.Sampler)
    model_runner.Sampler = RowSampler  # type: ignore[misc]
