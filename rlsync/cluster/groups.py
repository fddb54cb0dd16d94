"""The groups of trainer ranks and rollout engines that the training loop calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from rlsync.cluster.actor_set import Cluster
from rlsync.cluster.calls import gather, stream
from rlsync.config.parity import Fault
from rlsync.config.run import TrainConfig
from rlsync.pack import Pack
from rlsync.samples import Rollout, RolloutRequest, Sample, TrainSample
from rlsync.trace.records import OpKey, OpRecord
from rlsync.trainer.packing import minibatch_size, plan_packs
from rlsync.trainer.stats import StepStats
from rlsync.weight_sync.sync import Transferred

OnProgress = Callable[[int, int, int], None]
"""Takes the numbers of finished requests, of all requests, and of the tokens sampled so far."""


class TrainerGroup:
    """Implements the loop's Trainer protocol with the FSDP ranks."""

    def __init__(self, cluster: Cluster, config: TrainConfig) -> None:
        self._cluster, self._config = cluster, config

    def train(self, samples: list[Sample], version: int) -> list[StepStats]:
        """Train one step on the samples; `version` is the version of the weights before the step."""
        packs = self._plan([sample.for_training() for sample in samples], self._config.trainer.minibatches)
        sizes = [minibatch_size(minibatch) for minibatch in packs]
        calls = [
            (member, member.handle.train.remote([minibatch[rank] for minibatch in packs], sizes, version))
            for rank, member in enumerate(self._cluster.trainers)
        ]
        return gather(calls, stage="training", timeout_s=self._config.cluster.stage_timeout_s)

    def reference_kl(self, rollouts: list[Rollout]) -> list[torch.Tensor]:
        """Return each rollout's KL to the reference, [T] float64; 0 at tokens that were not sampled."""
        return self._of_tokens("KL to the reference", rollouts, lambda h, packs: h.reference_kl.remote(packs))

    def values(self, rollouts: list[Rollout]) -> list[torch.Tensor]:
        """Return the critic's value before each token of each rollout, [T] float32; 0 at tokens not sampled."""
        return self._of_tokens("values", rollouts, lambda h, packs: h.values.remote(packs))

    def _of_tokens(
        self, stage: str, rollouts: list[Rollout], call: Callable[[Any, list[Pack]], Any]
    ) -> list[torch.Tensor]:
        """Run a collective on packs of the rollouts, and return its value for the tokens of each rollout.

        Args:
            stage: Name of the stage, for messages.
            rollouts: The rollouts.
            call: Starts the collective on one rank; it gets the actor's handle and the rank's packs.
        """
        (packs,) = self._plan([TrainSample(rollout=rollout) for rollout in rollouts], minibatches=1)
        calls = [(m, call(m.handle, packs[rank])) for rank, m in enumerate(self._cluster.trainers)]
        parts = gather(calls, stage=stage, timeout_s=self._config.cluster.stage_timeout_s)
        found = {index: value for part in parts for index, value in part.items()}
        return [found[index] for index in range(len(rollouts))]

    def _plan(self, samples: list[TrainSample], minibatches: int) -> list[list[list[Pack]]]:
        settings = self._config.trainer
        return plan_packs(
            samples,
            ranks=settings.ranks,
            minibatches=minibatches,
            micro_batch_tokens=settings.micro_batch_tokens,
            share_prefixes=self._config.share_prefixes,
        )

    def trace(self, rollout: Rollout, tp: int, rows: dict[OpKey, int] | None) -> list[OpRecord]:
        """Forward a rollout on all ranks, and return the records of the first."""
        return self._cluster.on_trainers("trace", lambda h: h.trace.remote(rollout, tp, rows))[0]

    def save(self, folder: str, *, version: int, resumable: bool) -> None:
        """Write a checkpoint of weights of this version; `resumable`: with the trainer's state."""
        self._cluster.on_trainers("saving", lambda h: h.save.remote(folder, version, resumable))

    def load(self, folder: str, version: int) -> None:
        """Load the trainer's state from a checkpoint of weights of this version."""
        self._cluster.on_trainers("resuming", lambda h: h.load.remote(folder, version))

    def peak_memory_gib(self) -> float:
        """Return the sum of the peak resident memory of all ranks, in GiB."""
        return sum(self._cluster.on_trainers("memory", lambda h: h.peak_memory_gib.remote()))


class RolloutGroup:
    """Implements the loop's Rollouts protocol with the engines.

    Args:
        cluster: The run's actors.
        config: The run's configuration.
        on_progress: Called with each finished rollout, with the numbers of finished and of all requests of a call, and
            of the tokens sampled so far.
    """

    def __init__(self, cluster: Cluster, config: TrainConfig, on_progress: OnProgress = lambda *_: None) -> None:
        self._cluster, self._config, self._on_progress = cluster, config, on_progress

    def generate(self, requests: list[RolloutRequest]) -> Iterator[tuple[int, Rollout]]:
        """Yield the index and the rollout of each request when it is finished.

        The requests are dealt out to the n engines: engine i gets requests i, i + n, i + 2n and so on.
        """
        engines = self._cluster.engines
        calls = [(m, m.handle.generate.remote(requests[i :: len(engines)])) for i, m in enumerate(engines)]
        done = tokens = 0
        for engine, finished in stream(calls, stage="rollout", timeout_s=self._config.cluster.stage_timeout_s):
            for index, rollout in finished:
                done, tokens = done + 1, tokens + rollout.num_sampled
                self._on_progress(done, len(requests), tokens)
                yield engine + index * len(engines), rollout

    @property
    def engines(self) -> int:
        """Number of engines."""
        return len(self._cluster.engines)

    def trace(
        self, engine: int, request: RolloutRequest, expected: list[OpRecord] | None
    ) -> tuple[Rollout, list[list[OpRecord]]]:
        """Answer a request in one engine, and return the rollout and the records of each TP rank."""
        member = self._cluster.engines[engine]
        call = (member, member.handle.trace.remote(request, expected))
        return gather([call], stage="trace", timeout_s=self._config.cluster.stage_timeout_s)[0]

    def sleep(self) -> None:
        """With rollout.sleep=true, free the engines' GPU memory for the trainer until the next sync."""
        if self._config.rollout.sleep:
            self._cluster.on_engines("sleep", lambda h: h.sleep.remote())

    def transfer_weights(self, version: int, fault: Fault) -> Transferred:
        """Transfer the weights, as Transfer.transfer_weights.

        Sleeping engines wake in two steps: weights first, then the KV cache. Before each step the trainer frees the GPU
        memory that it does not need.
        """
        trainers, engines = self._cluster.trainers, self._cluster.engines
        if self._config.rollout.sleep:
            self._free_trainers()
        calls = [(m, m.handle.send_weights.remote()) for m in trainers]
        calls += [(m, m.handle.receive_weights.remote(version, fault)) for m in engines]
        results = gather(calls, stage="weight sync", timeout_s=self._config.cluster.stage_timeout_s)
        if self._config.rollout.sleep:
            self._free_trainers()
            self._cluster.on_engines("weight sync", lambda h: h.wake.remote())
        trainer = [digest for rank in results[: len(trainers)] for digest in rank]
        return Transferred(trainer=trainer, engines=results[len(trainers) :])

    def _free_trainers(self) -> None:
        self._cluster.on_trainers("weight sync", lambda h: h.free_memory.remote())

    def peak_memory_gib(self) -> float:
        """Return the sum of the peak resident memory of all engines, in GiB."""
        return sum(self._cluster.on_engines("memory", lambda h: h.peak_memory_gib.remote()))
