"""Traces a sequence with an engine in a child process and a trainer rank in this one."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from torch.distributed.device_mesh import init_device_mesh
from transformers.utils.logging import disable_progress_bar

from rlsync.rollout.settings import EngineSettings
from rlsync.samples import Rollout
from rlsync.telemetry.console import ConsoleReporter
from rlsync.trace.replay import trace_rollout
from rlsync.trace.report import TABLE_COLUMNS, TraceReport, headline, table_rows
from rlsync.trainer.settings import TrainerSettings
from rlsync.trainer.sharded import Sharded
from rlsync.trainer.trace import trace_forward
from rlsync.verify.engine_host import EngineJob, ask, engine_host, let_go, trace_in_host
from rlsync.verify.single_rank import single_rank

_LONGEST_TABLE = 40
"""Number of ops that the table shows."""


def trace_with_job(
    host: Connection, job: EngineJob, trainer: TrainerSettings, rollout: Rollout, position: int, sequence: int
) -> TraceReport:
    """Run an engine through its batches again, and trace a sequence in the state that they leave behind.

    Args:
        host: The child process that runs engines.
        job: The engine and its batches.
        trainer: Settings of the trainer rank. The process group must exist.
        rollout: The sequence.
        position: Position of a sampled token in the turn that is sampled again.
        sequence: Index of the sequence, for the report.
    """
    policy = Sharded(trainer, trainer.models.policy, init_device_mesh(trainer.device.value, (1,)), trainable=False)
    tp = job.settings.rollout.tp
    host.send(replace(job, keeps=True))
    ask(host)
    try:
        return trace_rollout(
            rollout,
            position,
            sequence=sequence,
            tp=tp,
            native=job.settings.native,
            engine=partial(trace_in_host, host),
            trainer=lambda replay, rows: trace_forward(policy, replay, tp, rows),
        )
    finally:
        let_go(host)


def trace_saved(engine: EngineSettings, trainer: TrainerSettings, rollout: Rollout, sample: int) -> TraceReport:
    """Trace the last turn of a saved rollout with engines and weights that are loaded for it.

    Args:
        engine: Settings of the engine, with the weights that sampled as its model.
        trainer: Settings of the trainer rank, with the same model.
        rollout: The saved rollout.
        sample: Index of the sample in its step, for the report.
    """
    disable_progress_bar()
    eager = replace(engine, rollout=replace(engine.rollout, cuda_graphs=False))
    job = EngineJob(settings=eager, kv_blocks=None, batches=[])
    last = int(rollout.sampled.nonzero()[-1])
    with (
        tempfile.TemporaryDirectory(prefix="rlsync-trace-") as scratch,
        single_rank(scratch, engine.device),
        engine_host(eager, str(Path(scratch, "engine.log"))) as host,
    ):
        return trace_with_job(host, job, trainer, rollout, last, sample)


def show(report: TraceReport, console: ConsoleReporter) -> None:
    """Print a report: the ops that differ, in order, and the sentence that names the first."""
    rows = table_rows(report)
    if rows:
        console.table("difference by op", TABLE_COLUMNS, rows[:_LONGEST_TABLE])
    if len(rows) > _LONGEST_TABLE:
        console.say(f"... and {len(rows) - _LONGEST_TABLE} more ops")
    console.say(f"{headline(report)} ({report.seconds:.1f} s)")
