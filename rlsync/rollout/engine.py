"""One vLLM engine, which turns requests into finished rollouts; both hold token ids only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from vllm import LLMEngine, RequestOutput, SamplingParams
from vllm.logprobs import FlatLogprobs
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext

from rlsync.config.cluster import Device
from rlsync.config.parity import Fault
from rlsync.config.rollout import WeightPath
from rlsync.errors import ConfigError, RlsyncError
from rlsync.rollout.engine_args import engine_args
from rlsync.rollout.settings import EngineSettings
from rlsync.samples import FinishReason, Rollout, RolloutRequest
from rlsync.trace.records import OpRecord
from rlsync.vllm_plugin.requests import GREEDY_KEY, SEED_KEY
from rlsync.weight_sync.digest import TensorDigest
from rlsync.weight_sync.plan import SyncPlan
from rlsync.weight_sync.transport import Seat


@dataclass(slots=True, kw_only=True)
class EngineCounters:
    """Counters of the scheduler since the engine started."""

    preemptions: int
    """Number of preempted requests."""
    prefix_cache_hit_tokens: int
    """Number of prompt tokens that were found in the prefix cache."""
    chunked_prompts: int
    """Number of prompts longer than max_num_batched_tokens, which vLLM prefills in chunks."""


@contextmanager
def _refusals(model_path: str) -> Iterator[None]:
    """Turn an error of vLLM about a model or its settings into a message for the user.

    For models that rlsync knows, models/checks.py finds such errors before any actor starts; kernels=native serves
    other models too.
    """
    try:
        yield
    except RlsyncError:
        raise
    except (ValueError, NotImplementedError) as error:
        lines = [line.strip().removeprefix("Value error, ") for line in str(error).splitlines()]
        message = next((line for line in lines if line and "validation error" not in line), type(error).__name__)
        raise ConfigError(
            f"vLLM refuses the model {model_path} with these rollout settings: {message:.500}. Change rollout.*, or "
            "use another model."
        ) from error


class RolloutEngine:
    """Drives a vLLM engine in this process; its tensor-parallel workers are child processes.

    Args:
        settings: the settings of the engine.
        kv_blocks: size of the KV cache in blocks, in place of rollout.kv_cache_mib.
        in_process: with rollout.tp=1 the worker lives in this process.
        counts: keep vLLM's statistics for `counters`, at some cost in every step.
        before_workers: called after vLLM's configuration is made and before its workers start.

    Raises:
        ConfigError: vLLM refuses the model or the settings.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        kv_blocks: int | None = None,
        in_process: bool = True,
        counts: bool = False,
        before_workers: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._native = settings, settings.native
        args = engine_args(settings, kv_blocks=kv_blocks, in_process=in_process)
        with _refusals(settings.model_path):
            vllm_config = args.create_engine_config(UsageContext.LLM_CLASS)
        before_workers()
        with _refusals(settings.model_path):
            self._engine = LLMEngine.from_vllm_config(
                vllm_config, usage_context=UsageContext.LLM_CLASS, disable_log_stats=not counts
            )
            if not self._native and settings.device is Device.cpu:
                self._engine.collective_rpc("rlsync_report_row_digests")
        self._ids = itertools.count()
        self._version = 0
        self._asleep = False
        self._chunked = 0

    def fingerprints(self) -> list[str]:
        """The fingerprint of each worker's kernels; empty with kernels=native, which has none."""
        return [] if self._native else self._engine.collective_rpc("rlsync_fingerprint")

    def worker_pids(self) -> list[int]:
        """The process id of each worker."""
        return self._engine.collective_rpc("rlsync_pid")

    def generate(self, requests: list[RolloutRequest]) -> list[Rollout]:
        """Answer all requests and return their rollouts in the same order."""
        rollouts = {index: rollout for finished in self.stream(requests) for index, rollout in finished}
        return [rollouts[index] for index in range(len(requests))]

    def stream(self, requests: list[RolloutRequest]) -> Iterator[list[tuple[int, Rollout]]]:
        """Answer all requests, and yield those that finish together.

        Yields:
            After each step of the engine that has finished requests, their indices and rollouts.
        """
        order = {}
        for index, request in enumerate(requests):
            request_id = str(next(self._ids))
            order[request_id] = index
            self._chunked += len(request.prompt) > self._settings.rollout.max_num_batched_tokens
            self._engine.add_request(request_id, {"prompt_token_ids": request.prompt}, self._params(request))
        while self._engine.has_unfinished_requests():
            outputs = [out for out in self._engine.step() if isinstance(out, RequestOutput) and out.finished]
            finished = [(order[out.request_id], out) for out in outputs]
            if finished:
                yield [(index, self._rollout(requests[index], output)) for index, output in finished]

    def trace(
        self, request: RolloutRequest, expected: list[OpRecord] | None = None
    ) -> tuple[Rollout, list[list[OpRecord]]]:
        """Answer one request while every op of the workers is recorded.

        Args:
            request: The request. Tokens of its prompt that the prefix cache holds are not computed, so not recorded.
            expected: The trainer's records; of each op the row of the first token that differs is kept.

        Returns:
            The rollout, and the records of each TP rank.
        """
        self._engine.collective_rpc("rlsync_record", args=(expected,))
        try:
            (rollout,) = self.generate([request])
        finally:
            records = self._engine.collective_rpc("rlsync_recorded")
        return rollout, records

    def connect(self, plan: SyncPlan, seats: list[Seat]) -> None:
        """Let the workers join their weight channels.

        Args:
            plan: the plan of the weight sync, which the trainer ranks share.
            seats: one seat for each tensor-parallel worker.
        """
        on_gpu = self._settings.device is Device.cuda
        rollout = self._settings.rollout
        # With kernels=native vLLM repacks the weights, and an engine that sleeps moves them.
        fixed = on_gpu and not self._native and not rollout.sleep and rollout.weight_path is WeightPath.auto
        self._engine.collective_rpc("rlsync_connect", args=(plan, seats, fixed))

    def sleep(self) -> None:
        """Free the memory of weights and KV cache (rollout.sleep).

        `receive_weights` brings the weights back, and `wake` the KV cache.
        """
        self._engine.sleep(level=2)
        self._asleep = True

    def receive_weights(self, version: int, fault: Fault) -> list[TensorDigest]:
        """Load the weights that the trainer ranks send, and reset the prefix cache.

        Args:
            version: version of the weights.
            fault: a fault to plant in the last worker.

        Returns:
            The digests of all workers' parts.
        """
        if self._asleep:
            self._engine.wake_up(["weights"])
        parts = self._engine.collective_rpc("rlsync_receive", args=(self._native, fault))
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache, because requests are still running")
        self._version = version
        return [digest for worker in parts for digest in worker]

    def wake(self) -> None:
        """Allocate the KV cache of a sleeping engine again, after `receive_weights`."""
        if self._asleep:
            self._engine.wake_up(["kv_cache"])
            self._asleep = False

    def counters(self) -> EngineCounters:
        """Return the scheduler's counters. The engine must have been made with `counts=True`."""
        metrics: dict[str, Any] = {m.name: m for m in self._engine.get_metrics()}
        return EngineCounters(
            preemptions=int(metrics["vllm:num_preemptions"].value),
            prefix_cache_hit_tokens=int(metrics["vllm:prefix_cache_hits"].value),
            chunked_prompts=self._chunked,
        )

    def shutdown(self) -> None:
        """Stop the engine and its workers."""
        self._engine.engine_core.shutdown()

    def _params(self, request: RolloutRequest) -> SamplingParams:
        shared: dict[str, Any] = {
            "max_tokens": request.max_tokens,
            "stop_token_ids": request.stop_ids,
            "logprobs": 0,
            "flat_logprobs": True,  # one list of numbers for each request instead of an object for each token
            "detokenize": False,
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        if self._native:
            temperature = 0.0 if request.greedy else self._settings.rollout.temperature
            return SamplingParams(temperature=temperature, **shared)
        extra = {SEED_KEY: request.seed, GREEDY_KEY: request.greedy}
        return SamplingParams(temperature=0.0, extra_args=extra, **shared)

    def _rollout(self, request: RolloutRequest, output: RequestOutput) -> Rollout:
        (completion,) = output.outputs
        response = list(completion.token_ids)
        flat = completion.logprobs
        assert isinstance(flat, FlatLogprobs)
        assert flat.token_ids == response, "vLLM must return exactly one log-prob for each sampled token"
        prompt = len(request.prompt)
        return Rollout(
            tokens=torch.tensor(request.prompt + response),
            sampled=torch.tensor([False] * prompt + [True] * len(response)),
            logprobs=torch.tensor([0.0] * prompt + flat.logprobs, dtype=torch.float32),
            weight_version=torch.tensor([-1] * prompt + [self._version] * len(response), dtype=torch.int32),
            row_digests=None if self._native else torch.tensor([0] * prompt + list(flat.ranks), dtype=torch.int64),
            seed=request.seed,
            finish_reason=FinishReason.stop if completion.finish_reason == "stop" else FinishReason.length,
        )
