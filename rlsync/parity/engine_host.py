"""A child process that runs one vLLM engine after another, so that vLLM is imported once for all cases."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from rlsync.cluster.env import apply_to_engine_host
from rlsync.config.run import TrainConfig
from rlsync.errors import RlsyncError
from rlsync.parity.cases import Batch
from rlsync.types import Rollout


@dataclass(slots=True)
class Answer:
    """What one engine gave: rollouts of each batch, and what its scheduler really did."""

    rollouts: list[list[Rollout]]
    fingerprints: list[str]
    preemptions: int
    cache_hit_tokens: int
    chunked_prompts: int


@contextmanager
def engine_host(widest: TrainConfig, log: str) -> Iterator[Connection]:
    """Start the child; send it (config, model path, KV blocks, batches), receive an Answer or an exception.

    Args:
        widest: the configuration with the largest TP; fixes the CPUs of the workers.
        log: file for what the engines print.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, widest, log), name="rlsync-parity-engines")
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


def ask(host: Connection) -> Answer:
    """The next answer.

    Raises:
        RlsyncError: the engine failed, or the child is gone.
    """
    try:
        answer = host.recv()
    except EOFError:
        raise RlsyncError("the process that runs the vLLM engines died") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(pipe: Connection, widest: TrainConfig, log: str) -> None:
    apply_to_engine_host(widest)
    with open(log, "w") as file:  # vLLM and its workers talk a lot
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    while (job := pipe.recv()) is not None:
        try:
            pipe.send(_run(*job))
        except Exception as error:  # whatever it is, the parent reports it
            pipe.send(error if isinstance(error, RlsyncError) else RlsyncError(f"{type(error).__name__}: {error}"))


def _run(config: TrainConfig, model_path: str, kv_blocks: int, batches: list[Batch]) -> Answer:
    from rlsync.rollout.engine import RolloutEngine

    engine = RolloutEngine(config, model_path, kv_blocks=kv_blocks, in_process=False)
    try:
        rollouts = [engine.generate(batch.requests) for batch in batches]
        counters = engine.counters()
        return Answer(
            rollouts=rollouts,
            fingerprints=engine.fingerprints(),
            preemptions=counters.preemptions,
            cache_hit_tokens=counters.prefix_cache_hit_tokens,
            chunked_prompts=counters.chunked_prompts,
        )
    finally:
        engine.shutdown()
