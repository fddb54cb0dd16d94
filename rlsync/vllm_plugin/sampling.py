"""Stateless sampling as a logits processor of vLLM (V1).

The processor draws a token from the log-probs, the seed and the position of each row, and sets all other entries of the
row to -inf, so that vLLM's greedy sampling chooses that token. vLLM reports the log-probs from before this step
(raw_logits), so they stay exact.
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
    """The logits processor; vLLM calls its methods."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse requests that the trainer could not draw again; raises ValueError."""
        check_params(sampling_params)

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002
        self._rows: dict[int, tuple[int, int, Sequence[int], bool]] = {}

    def is_argmax_invariant(self) -> bool:
        """False, because the processor changes which token is the most probable one."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests that enter, move within and leave the batch."""
        process_dict_updates(self._rows, batch_update, _row_state)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Replace the log-probs [T, V], in place, by 0 at each row's drawn token and -inf elsewhere."""
        rows = [self._rows[i] for i in range(logits.shape[0])]
        seeds = torch.tensor([seed for seed, _, _, _ in rows], dtype=torch.int64, device=logits.device)
        # Positions count from the start of the prompt, so a partial rollout that is submitted again draws the same.
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
    """Seed, prompt length, the list of output tokens that vLLM extends, and whether the request is greedy."""
    extra = params.extra_args or {}
    return extra[SEED_KEY], len(prompt or ()), output, bool(extra.get(GREEDY_KEY, False))
