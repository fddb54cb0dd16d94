"""A child process that runs one vLLM engine after another and imports vLLM once for all cases.

The child imports vLLM and starts no thread. Each engine runs in a fork of it, and the engine's workers are forks too. A
fork takes milliseconds, while a spawned process would spend seven seconds on imports.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlsync.cluster.env import apply_to_engine_host, fork_workers
from rlsync.cluster.session_folder import session_folder
from rlsync.config.cluster import Device
from rlsync.errors import RlsyncError
from rlsync.rollout.settings import EngineSettings
from rlsync.samples import Rollout, RolloutRequest
from rlsync.trace.records import OpRecord
from rlsync.verify.cases import Batch

if TYPE_CHECKING:  # vLLM is imported in the child process only
    from rlsync.rollout.engine import RolloutEngine

Traced = tuple[Rollout, list[list[OpRecord]]]
"""What `trace_in_host` returns."""


@dataclass(slots=True)
class Answer:
    """The results of one engine: the rollouts of each batch, and the counters of its scheduler."""

    rollouts: list[list[Rollout]]
    """The rollouts as [batch][request]."""
    fingerprints: list[str]
    """The fingerprint of each worker's kernels."""
    preemptions: int
    """Number of preempted requests."""
    cache_hit_tokens: int
    """Number of prompt tokens that were found in the prefix cache."""
    chunked_prompts: int
    """Number of prompts that were prefilled in chunks."""


@dataclass(slots=True, kw_only=True)
class EngineJob:
    """An engine to run."""

    settings: EngineSettings
    kv_blocks: int | None
    """Size of the KV cache in blocks; None for that of the settings."""
    batches: list[Batch]
    """The batches of requests, which are answered in order."""
    keeps: bool = False
    """Keep the engine after its answer, for `trace_in_host`, until `let_go`."""


@dataclass(slots=True, kw_only=True)
class TraceRequest:
    """A request to be answered while every op is recorded."""

    request: RolloutRequest
    expected: list[OpRecord] | None
    """The trainer's records; of each op the row of the first token that differs is kept."""


@contextmanager
def engine_host(widest: EngineSettings, log: str) -> Iterator[Connection]:
    """Run the child process.

    Send an EngineJob into the connection, and call `ask` for the answer.

    Args:
        widest: the settings with the largest tensor-parallel size, which decide on the CPUs of the workers.
        log: path of the file for the engines' output.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with session_folder() as folder:
        process = context.Process(target=_serve, args=(theirs, widest, log, folder), name="rlsync-parity-engines")
        process.start()
        theirs.close()
        try:
            yield ours
            ours.send(None)
            process.join(30)
        finally:
            if process.is_alive():
                process.terminate()
                process.join()


def trace_in_host(host: Connection, request: RolloutRequest, expected: list[OpRecord] | None) -> Traced:
    """Answer a request with the engine that a job has kept: the rollout, and the records of each TP rank."""
    host.send(TraceRequest(request=request, expected=expected))
    traced: Traced = ask(host)
    return traced


def let_go(host: Connection) -> None:
    """End the engine that a job has kept."""
    host.send(None)


def ask(host: Connection) -> Any:
    """Wait for the next answer, to an EngineJob an Answer.

    Raises:
        RlsyncError: the engine failed, or the child process died.
    """
    try:
        answer = pickle.loads(host.recv_bytes())
    except EOFError:
        raise RlsyncError("the process that runs the vLLM engines died") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(pipe: Connection, widest: EngineSettings, log: str, folder: Path) -> None:
    apply_to_engine_host(widest, folder)
    torch.set_num_threads(1)  # a fork inherits the number and not the threads, and each worker has one core
    with open(log, "w") as file:  # vLLM and its workers print a lot
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _import_engines(widest.device)
    context = multiprocessing.get_context("fork")
    while (job := pipe.recv()) is not None:
        engine = context.Process(target=_run, args=(pipe, job), name="rlsync-parity-engine")
        engine.start()
        engine.join()
        if engine.exitcode:
            _send(pipe, RlsyncError(f"the process of a vLLM engine died with exit code {engine.exitcode}"))


def _import_engines(device: Device) -> None:
    """Import everything that an engine and its workers import."""
    importlib.import_module("vllm.v1.executor.multiproc_executor")
    importlib.import_module("vllm.v1.worker.cpu_worker" if device is Device.cpu else "vllm.v1.worker.gpu_worker")
    importlib.import_module("rlsync.rollout.engine")


def _run(pipe: Connection, job: EngineJob) -> None:
    """Run one engine, and send its answers or the exception with which it ended."""
    try:
        with _engine(job) as engine:
            _send(pipe, _answer(engine, job.batches))
            while job.keeps and (asked := pipe.recv()) is not None:
                _send(pipe, engine.trace(asked.request, asked.expected))
    except Exception as error:  # noqa: BLE001 (the parent process reports it, whatever it is)
        _send(pipe, error if isinstance(error, RlsyncError) else RlsyncError(f"{type(error).__name__}: {error}"))


def _send(pipe: Connection, message: object) -> None:
    """Send a message as pickled bytes; torch would send tensors as shared memory, which ends with this process."""
    pipe.send_bytes(pickle.dumps(message))


@contextmanager
def _engine(job: EngineJob) -> Iterator[RolloutEngine]:
    from rlsync.rollout.engine import RolloutEngine

    # On a CPU a worker binds its process to cores, so it must not share the process of the engine.
    in_process = job.settings.device is Device.cuda
    engine = RolloutEngine(
        job.settings, kv_blocks=job.kv_blocks, in_process=in_process, counts=True, before_workers=fork_workers
    )
    try:
        yield engine
    finally:
        engine.shutdown()


def _answer(engine: RolloutEngine, batches: list[Batch]) -> Answer:
    rollouts = [engine.generate(batch.requests) for batch in batches]
    counters = engine.counters()
    return Answer(
        rollouts=rollouts,
        fingerprints=engine.fingerprints(),
        preemptions=counters.preemptions,
        cache_hit_tokens=counters.prefix_cache_hit_tokens,
        chunked_prompts=counters.chunked_prompts,
    )
