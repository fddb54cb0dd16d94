"""One vLLM engine: requests in, finished rollouts out, token ids only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from vllm import EngineArgs, LLMEngine, RequestOutput, SamplingParams
from vllm.logprobs import FlatLogprobs
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext

from rlsync.config.cluster import Device
from rlsync.config.kernels import KernelMode
from rlsync.config.parity import Fault
from rlsync.config.rollout import RolloutConfig
from rlsync.config.run import TrainConfig
from rlsync.errors import ConfigError, RlsyncError
from rlsync.samples import FinishReason, Rollout, RolloutRequest
from rlsync.vllm_plugin.requests import GREEDY_KEY, SEED_KEY
from rlsync.vllm_plugin.settings import PluginSettings
from rlsync.weight_sync.digest import TensorDigest
from rlsync.weight_sync.plan import SyncPlan
from rlsync.weight_sync.transport import Seat

_EXTENSION = "rlsync.vllm_plugin.weights.WeightReceiver"
_CPU_SAMPLER = "rlsync.vllm_plugin.sampling:StatelessSampler"
_GPU_SAMPLER = "rlsync.vllm_plugin.gpu_sampling:RequestSeeds"
_LITTLE = 0.01
_MIXED_GRAPH_TOKENS = 2048
"""Steps with more tokens than this are long enough to hide their launches."""


@dataclass(slots=True, kw_only=True)
class EngineCounters:
    """What the scheduler really did since the engine started."""

    preemptions: int
    prefix_cache_hit_tokens: int
    chunked_prompts: int


def engine_args(
    config: TrainConfig, model_path: str, *, kv_blocks: int | None = None, in_process: bool = True
) -> EngineArgs:
    """vLLM's arguments for a run; in native mode stock vLLM, but for the worker's weight receiver.

    Args:
        kv_blocks: size of the KV cache in blocks, in place of rollout.kv_cache_mib.
        in_process: a single worker (TP=1) lives in this process rather than in a child.
    """
    rollout = config.rollout
    cuda = config.cluster.device is Device.cuda
    cuda_graphs = _cuda_graphs(rollout) if cuda and rollout.cuda_graphs else None
    # vLLM wants the share free at its start even where the cache's size is given.
    share = _LITTLE if cuda and rollout.kv_cache_mib else rollout.gpu_memory_utilization
    common = {
        "model": model_path,
        "revision": config.model.revision,
        "skip_tokenizer_init": True,
        "dtype": config.model.dtype.value,
        "seed": 0,
        "tensor_parallel_size": rollout.tp,
        "distributed_executor_backend": "uni" if in_process and rollout.tp == 1 else "mp",
        "max_model_len": rollout.max_model_len,
        "max_num_seqs": rollout.max_num_seqs,
        "max_num_batched_tokens": rollout.max_num_batched_tokens,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": rollout.prefix_caching,
        "block_size": rollout.block_size,
        "kv_cache_memory_bytes": rollout.kv_cache_mib << 20 or None,
        "gpu_memory_utilization": share,
        "model_impl": rollout.model_impl.value,
        "enforce_eager": cuda_graphs is None,
        "worker_extension_cls": _EXTENSION,
        "num_gpu_blocks_override": kv_blocks,
        "enable_sleep_mode": rollout.sleep,
    }
    if config.kernels.mode is KernelMode.native:
        return EngineArgs(**common, logprobs_mode="processed_logprobs")
    settings = PluginSettings(
        leaves=config.leaves, row_parallel=config.kernels.row_parallel.value, temperature=rollout.temperature
    )
    return EngineArgs(
        **common,
        quantization="rlsync",
        kernel_config={"ir_op_priority": {"rms_norm": ["rlsync"], "fused_add_rms_norm": ["rlsync"]}},
        compilation_config={"mode": 0, "custom_ops": ["none"]} | (cuda_graphs or {}),
        attention_backend="CUSTOM" if cuda else None,
        logprobs_mode="raw_logits",
        logits_processors=[_GPU_SAMPLER if cuda else _CPU_SAMPLER],
        additional_config=settings.as_additional_config(),
    )


def _cuda_graphs(rollout: RolloutConfig) -> dict[str, object]:
    """Decode steps as whole graphs, mixed ones in pieces; the sizes lie apart by a fifth or so, which a step hardly
    feels and the start-up does."""
    largest = max(rollout.max_num_seqs, min(rollout.max_num_batched_tokens, _MIXED_GRAPH_TOKENS))
    grid = itertools.chain(
        (1, 2, 4, 8), range(16, 128, 16), range(128, 256, 32), range(256, 1024, 64), range(1024, largest, 128)
    )
    sizes = [*itertools.takewhile(lambda size: size < largest, grid), largest]
    return {"cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": sizes}


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
        config: TrainConfig,
        model_path: str,
        *,
        kv_blocks: int | None = None,
        in_process: bool = True,
        counts: bool = False,
        before_workers: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._native = config.kernels.mode is KernelMode.native
        args = engine_args(config, model_path, kv_blocks=kv_blocks, in_process=in_process)
        with _refusals(model_path):
            vllm_config = args.create_engine_config(UsageContext.LLM_CLASS)
        before_workers()
        with _refusals(model_path):
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
            self._chunked += len(request.prompt) > self._config.rollout.max_num_batched_tokens
            self._engine.add_request(request_id, {"prompt_token_ids": request.prompt}, self._params(request))
        while self._engine.has_unfinished_requests():
            finished = [(order[out.request_id], out) for out in self._engine.step() if out.finished]
            if finished:
                yield [(index, self._rollout(requests[index], output)) for index, output in finished]

    def connect(self, plan: SyncPlan, seats: list[Seat]) -> None:
        """Join the weight channels; one seat for each TP worker."""
        on_gpu = self._config.cluster.device is Device.cuda
        fixed = on_gpu and not self._native and not self._config.rollout.sleep  # vLLM repacks weights, or moves them
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
        metrics = {m.name: m for m in self._engine.get_metrics()}
        return EngineCounters(
            preemptions=int(metrics["vllm:num_preemptions"].value),
            prefix_cache_hit_tokens=int(metrics["vllm:prefix_cache_hits"].value),
            chunked_prompts=self._chunked,
        )

    def shutdown(self) -> None:
        self._engine.engine_core.shutdown()

    def _params(self, request: RolloutRequest) -> SamplingParams:
        shared = {
            "max_tokens": request.max_tokens,
            "stop_token_ids": request.stop_ids,
            "logprobs": 0,
            "flat_logprobs": True,  # a list of numbers a request, not an object a token
            "detokenize": False,
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        if self._native:
            temperature = 0.0 if request.greedy else self._config.rollout.temperature
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
