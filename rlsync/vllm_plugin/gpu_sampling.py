"""Stateless sampling as a logits processor of vLLM's GPU runner (V2).

The token that (log-probs, seed, position) draw becomes +inf, and vLLM's greedy step then takes it. Log-probs are
reported from before (raw_logits), so they stay exact.
"""

from __future__ import annotations

import numpy as np
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.worker.gpu.buffer_utils import StagedWriteTensor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcessor, LogitsProcRequestState

from rlsync.kernels import ops
from rlsync.vllm_plugin.requests import GREEDY_KEY, SEED_KEY, check_params


class StatelessSampler(LogitsProcessor):
    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        check_params(sampling_params)

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        self._seeds = StagedWriteTensor(req_states.max_num_reqs, torch.int64, req_states.device)
        self._greedy = StagedWriteTensor(req_states.max_num_reqs, torch.int32, req_states.device)
        self._greedy_host = np.zeros(req_states.max_num_reqs, dtype=bool)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        extra = sampling_params.extra_args or {}
        greedy = bool(extra.get(GREEDY_KEY, False))
        self._seeds.stage_write_elem(req_idx, extra.get(SEED_KEY, 0))  # vLLM's own warm-up requests have none
        self._greedy.stage_write_elem(req_idx, int(greedy))
        self._greedy_host[req_idx] = greedy
        return True

    def apply_staged_writes(self) -> None:
        self._seeds.apply_write()
        self._greedy.apply_write()

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        slots = ctx.expanded_idx_mapping
        winners = ops.draw(logits, self._seeds.gpu[slots], ctx.pos)
        if self._greedy_host[ctx.idx_mapping_np].any():
            winners = torch.where(self._greedy.gpu[slots].bool(), ops.greedy(logits), winners)
        return logits.scatter_(1, winners[:, None], torch.inf)
