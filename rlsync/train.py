"""Run a training: prepare, start the actors, loop, report, clean up."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from rlsync.cluster.groups import Cluster, RolloutGroup, TrainerGroup
from rlsync.cluster.session import ray_session
from rlsync.config.compose import to_yaml
from rlsync.config.kernels import KernelMode
from rlsync.config.run import TrainConfig
from rlsync.data.prompts import PromptStream
from rlsync.loop import Sinks, Summary, TrainingLoop
from rlsync.prepare import prepare
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.run_folder import RunFolder
from rlsync.telemetry.wandb_sink import WandbSink


def train(config: TrainConfig, console: ConsoleReporter) -> Summary:
    """One training run, from the configuration to summary.json.

    Raises:
        RlsyncError: with the one message that the user is to read; every process of the run has ended.
    """
    prepared = prepare(config, console.say)
    path = run_path(config)
    text = to_yaml(config)
    folder = RunFolder(path, text)
    wandb_sink = WandbSink(config.telemetry, config.run.name, path, _plain(config))
    exit_code = 1
    try:
        console.say(placement(config))
        if prepared.left_out:
            console.say(
                f"left out {prepared.left_out} problems with prompts over {config.data.max_prompt_tokens} tokens"
            )
        with ray_session(config), _terminate_as_interrupt():
            cluster = Cluster(config, prepared.model_path)
            try:
                loop = TrainingLoop(
                    config,
                    trainer=TrainerGroup(cluster, config),
                    rollouts=RolloutGroup(cluster, config),
                    scorer=prepared.scorer,
                    codec=prepared.codec,
                    prompts=PromptStream(prepared.training, config.seed),
                    held_out=prepared.held_out,
                    sinks=Sinks(folder=folder, wandb=wandb_sink, console=console),
                )
                summary = loop.run()
            finally:
                cluster.close()
        folder.write_summary(asdict(summary))
        exit_code = 0
    finally:
        folder.close()
        wandb_sink.finish(exit_code)
    for line in summary_lines(summary, path):
        console.say(line)
    return summary


def run_path(config: TrainConfig) -> Path:
    return Path(config.run.dir or f"runs/{config.run.name}").expanduser().resolve()


def placement(config: TrainConfig) -> str:
    """Who runs where, in a sentence."""
    where = config.cluster.address or "this machine"
    kernels = "native kernels (no parity)"
    if config.kernels.mode is KernelMode.invariant:
        kernels = f"{config.kernels.row_parallel} kernels, {config.leaves} leaves"
    return (
        f"{config.run.name}: {config.trainer.ranks} FSDP ranks, {config.rollout.engines} vLLM engine(s) with "
        f"TP={config.rollout.tp}, {config.model.dtype}, {kernels}, Ray on {where}, {config.cluster.device}"
    )


def summary_lines(summary: Summary, path: Path) -> list[str]:
    lines = [f"reward: {summary.reward_first:.3f} at step 1, {summary.reward_last:.3f} at step {summary.steps}"]
    if summary.accuracy_before is not None and summary.accuracy_after is not None:
        lines.append(f"held-out accuracy: {summary.accuracy_before:.3f} before, {summary.accuracy_after:.3f} after")
    lines.append(f"parity: {summary.tokens_different} of {summary.tokens_compared} tokens differ")
    lines.append(f"{summary.seconds:.0f} s; everything is in {path}")
    return lines


def _plain(config: TrainConfig) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config), default=str))


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does, through the same clean-up."""

    def handler(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
