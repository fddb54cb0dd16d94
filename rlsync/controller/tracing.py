"""The trace of a divergence in a running step: the first sample that differs, replayed in an engine and the trainer."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from rlsync.config.kernels import KernelMode
from rlsync.config.run import TrainConfig
from rlsync.parity.counts import Difference
from rlsync.samples import Rollout, RolloutRequest, Sample
from rlsync.trace.records import OpKey, OpRecord
from rlsync.trace.replay import trace_rollout
from rlsync.trace.report import TraceReport


class TracedTrainer(Protocol):
    """The trainer ranks, at the weights that sampled."""

    def trace(self, rollout: Rollout, tp: int, rows: dict[OpKey, int] | None) -> list[OpRecord]:
        """Forward a rollout, and return the records of all ops; see trainer.trace.trace_forward."""


class TracedRollouts(Protocol):
    """The rollout engines, at the weights that sampled."""

    @property
    def engines(self) -> int:
        """Number of engines."""

    def trace(
        self, engine: int, request: RolloutRequest, expected: list[OpRecord] | None
    ) -> tuple[Rollout, list[list[OpRecord]]]:
        """Answer a request in one engine, and return the rollout and the records of each TP rank."""


def trace_step(
    config: TrainConfig, samples: list[Sample], first: Difference, trainer: TracedTrainer, rollouts: TracedRollouts
) -> TraceReport:
    """Trace the first sample that differs, in the engine that sampled it, or else in the first that shows a difference.

    Args:
        config: The run's configuration.
        samples: The step's samples.
        first: The first token that differs.
        trainer: The trainer ranks.
        rollouts: The rollout engines.
    """
    tp, rollout = config.rollout.tp, samples[first.sequence].rollout
    begin = first.sequence % rollouts.engines  # without resampled groups this is the engine that answered the request
    report = None
    for engine in (*range(begin, rollouts.engines), *range(begin)):
        found = trace_rollout(
            rollout,
            first.position,
            sequence=first.sequence,
            tp=tp,
            native=config.kernels.mode is KernelMode.native,
            engine=partial(rollouts.trace, engine),
            trainer=lambda replay, rows: trainer.trace(replay, tp, rows),
        )
        if found.place is not None:
            return found
        report = report or found
    assert report is not None
    return report
