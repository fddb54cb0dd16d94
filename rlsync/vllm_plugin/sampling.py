"""Stateless sampling as a vLLM (V1) logits processor.

Each row becomes -inf but for the token that (log-probs, seed, position) draw; vLLM's greedy step then takes it.
Log-probs are reported from before (raw_logits), so they stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from rlsync.kernels import ops
from rlsync.vllm_plugin.requests import GREEDY_KEY, SEED_KEY, check_params


class StatelessSampler(LogitsProcessor):
    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        check_params(sampling_params)

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[int, int, Sequence[int], bool]] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._rows, batch_update, _row_state)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        rows = [self._rows[i] for i in range(logits.shape[0])]
        seeds = torch.tensor([seed for seed, _, _, _ in rows], dtype=torch.int64, device=logits.device)
        # Absolute position of the token that predicts, so that a resubmitted partial rollout draws on.
        positions = torch.tensor(
            [prompt + len(output) - 1 for _, prompt, output, _ in rows], dtype=torch.int64, device=logits.device
        )
        greedy = torch.tensor([g for _, _, _, g in rows], dtype=torch.bool, device=logits.device)
        drawn = ops.draw(logits, seeds, positions)
        winners = torch.where(greedy, ops.greedy(logits), drawn)
        return logits.fill_(-torch.inf).scatter_(1, winners[:, None], 0.0)


def _row_state(
    params: SamplingParams, prompt: list[int] | None, output: list[int]
) -> tuple[int, int, Sequence[int], bool]:
    """(seed, prompt length, live list of output tokens, greedy)."""
    extra = params.extra_args or {}
    return extra[SEED_KEY], len(prompt or ()), output, bool(extra.get(GREEDY_KEY, False))
