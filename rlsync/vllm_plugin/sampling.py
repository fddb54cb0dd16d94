"""Stateless sampling in vLLM's V1 model runner, which serves CPUs: a logits processor, and the sampler after it.

The processor draws a token from the log-probs, the seed and the position of each row, and sets all other entries of the
row to -inf, so that vLLM's greedy sampling chooses that token. vLLM reports the log-probs from before this step
(raw_logits), so they stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.sampler import Sampler

from rlsync.kernels import ops
from rlsync.vllm_plugin.layers import LogprobsProcessor
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


class RowDigestSampler(Sampler):
    """vLLM's sampler, but it reports the digest of each row of logits where vLLM reports the rank of a log-prob.

    Args:
        processor: The layer that made the rows of log-probs.
    """

    def __init__(self, processor: LogprobsProcessor) -> None:
        super().__init__(logprobs_mode="raw_logits")
        self._processor = processor

    def gather_logprobs(  # type: ignore[override]  # a static method in vLLM
        self,
        logprobs: torch.Tensor,
        num_logprobs: int,  # noqa: ARG002 (0 in every request of rlsync)
        token_ids: torch.Tensor,
    ) -> LogprobsTensors:
        """Return the log-probs of tokens [T] from rows [T, V], and the digests of the logits that the rows are of."""
        ids, digests = token_ids[:, None], self._processor.digests
        assert digests is not None
        assert len(digests) == len(logprobs)
        return LogprobsTensors(ids.to(torch.int32), logprobs.gather(-1, ids), digests)


def report_row_digests(model: torch.nn.Module) -> RowDigestSampler:
    """Return a sampler that reports the digests of the rows of `model`, a policy with rlsync's layers."""
    (processor,) = (module for module in model.modules() if isinstance(module, LogprobsProcessor))
    return RowDigestSampler(processor)


def _row_state(
    params: SamplingParams, prompt: list[int] | None, output: list[int]
) -> tuple[int, int, Sequence[int], bool]:
    """Seed, prompt length, the list of output tokens that vLLM extends, and whether the request is greedy."""
    extra = params.extra_args or {}
    return extra[SEED_KEY], len(prompt or ()), output, bool(extra.get(GREEDY_KEY, False))
