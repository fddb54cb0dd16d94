"""One vLLM engine: requests in, finished rollouts out, token ids only."""

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
from rlsync.vllm_plugin.requests import GREEDY_KEY, SEED_KEY
from rlsync.weight_sync.digest import TensorDigest
from rlsync.weight_sync.plan import SyncPlan
from rlsync.weight_sync.transport import Seat


@dataclass(slots=True, kw_only=True)
class EngineCounters:
    """What the scheduler really did since the engine started."""

    preemptions: int
    prefix_cache_hit_tokens: int
    chunked_prompts: int


@contextmanager
def _refusals(model_path: str) -> Iterator[None]:
    """Say in one sentence what vLLM refuses in a model or in settings.

    models/checks.py finds this before anything starts for the models that it knows; kernels=native serves others.
    """
    try:
        yield
    except RlsyncError:
        raise
    except (ValueError, NotImplementedError) as error:
        lines = [line.strip().removeprefix("Value error, ") for line in str(error).splitlines()]
        told = next((line for line in lines if line and "validation error" not in line), type(error).__name__)
        raise ConfigError(
            f"vLLM refuses the model {model_path} with these settings of rollout: {told:.500}. Change rollout.*, or "
            "take another model."
        ) from error


class RolloutEngine:
    """Drives vLLM's engine step by step in this process; TP workers are its children.

    Args:
        counts: keep vLLM's statistics, which `counters` reads and every step pays for.
        before_workers: called when vLLM's configuration is made, before its workers start.
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
        self._ids = itertools.count()
        self._version = 0
        self._asleep = False
        self._chunked = 0

    def fingerprints(self) -> list[str]:
        """One per worker; empty in native mode, which has none."""
        return [] if self._native else self._engine.collective_rpc("rlsync_fingerprint")

    def worker_pids(self) -> list[int]:
        return self._engine.collective_rpc("rlsync_pid")

    def generate(self, requests: list[RolloutRequest]) -> list[Rollout]:
        """Answer all requests; the result has their order."""
        rollouts = {index: rollout for finished in self.stream(requests) for index, rollout in finished}
        return [rollouts[index] for index in range(len(requests))]

    def stream(self, requests: list[RolloutRequest]) -> Iterator[list[tuple[int, Rollout]]]:
        """Answer all requests: after a step of the engine that finished some, their indices and rollouts."""
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

    def connect(self, plan: SyncPlan, seats: list[Seat]) -> None:
        """Join the weight channels; one seat for each TP worker."""
        on_gpu = self._settings.device is Device.cuda
        rollout = self._settings.rollout
        # In native mode vLLM repacks the weights, and a sleeping engine moves them.
        fixed = on_gpu and not self._native and not rollout.sleep and rollout.weight_path is WeightPath.auto
        self._engine.collective_rpc("rlsync_connect", args=(plan, seats, fixed))

    def sleep(self) -> None:
        """Free the memory of weights and KV cache (rollout.sleep); `receive_weights` fills the weights anew, and `wake`
        brings the cache back."""
        self._engine.sleep(level=2)
        self._asleep = True

    def receive_weights(self, version: int, fault: Fault) -> list[TensorDigest]:
        """Load the weights that the trainer ranks send, and forget every cached key and value.

        Returns:
            digests of all workers' parts.
        """
        if self._asleep:
            self._engine.wake_up(["weights"])
        parts = self._engine.collective_rpc("rlsync_receive", args=(self._native, fault))
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache: requests are still running")
        self._version = version
        return [digest for worker in parts for digest in worker]

    def wake(self) -> None:
        """Take back the memory of the KV cache, after `receive_weights`."""
        if self._asleep:
            self._engine.wake_up(["kv_cache"])
            self._asleep = False

    def counters(self) -> EngineCounters:
        """Of an engine that was made with `counts`."""
        metrics: dict[str, Any] = {m.name: m for m in self._engine.get_metrics()}
        return EngineCounters(
            preemptions=int(metrics["vllm:num_preemptions"].value),
            prefix_cache_hit_tokens=int(metrics["vllm:prefix_cache_hits"].value),
            chunked_prompts=self._chunked,
        )

    def shutdown(self) -> None:
        self._engine.engine_core.shutdown()

    def _params(self, request: RolloutRequest) -> SamplingParams:
        shared: dict[str, Any] = {
            "max_tokens": request.max_tokens,
            "stop_token_ids": request.stop_ids,
            "logprobs": 0,
            "flat_logprobs": True,  # a list of numbers a request, not an object a token
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
        assert flat.token_ids == response, "a log-prob for each sampled token, and no others"
        prompt = len(request.prompt)
        return Rollout(
            tokens=torch.tensor(request.prompt + response),
            sampled=torch.tensor([False] * prompt + [True] * len(response)),
            logprobs=torch.tensor([0.0] * prompt + flat.logprobs, dtype=torch.float32),
            weight_version=torch.tensor([-1] * prompt + [self._version] * len(response), dtype=torch.int32),
            seed=request.seed,
            finish_reason=FinishReason.stop if completion.finish_reason == "stop" else FinishReason.length,
        )
