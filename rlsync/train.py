"""Run a training: prepare, start the actors, loop, report, clean up."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlsync.cluster.groups import Cluster, RolloutGroup, TrainerGroup
from rlsync.cluster.placement import placement
from rlsync.cluster.session import ray_session, terminate_as_interrupt
from rlsync.config.compose import to_yaml
from rlsync.config.run import TrainConfig
from rlsync.data.prompts import PromptStream
from rlsync.evaluation import Evaluator
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
    path = config.run.folder
    text = to_yaml(config)
    folder = RunFolder(path, text)
    wandb_sink = WandbSink(config.telemetry, config.run.name, path, _plain(config))
    exit_code = 1
    try:
        console.say(placement(config))
        with ray_session(config), terminate_as_interrupt():
            started = time.perf_counter()
            cluster = Cluster(config, prepared.model_path, reward_models=prepared.reward_models)
            console.say(f"all actors are ready after {time.perf_counter() - started:.0f} s")
            try:
                rollouts = RolloutGroup(cluster, config)
                loop = TrainingLoop(
                    config,
                    trainer=TrainerGroup(cluster, config),
                    rollouts=rollouts,
                    scorer=prepared.scorer,
                    codec=prepared.codec,
                    prompts=PromptStream(prepared.training, config.seed, config.data.weights),
                    evaluator=Evaluator(config, rollouts, prepared.sets),
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


def summary_lines(summary: Summary, path: Path) -> list[str]:
    lines = [f"reward: {summary.reward_first:.3f} at step 1, {summary.reward_last:.3f} at step {summary.steps}"]
    if summary.accuracy_before is not None and summary.accuracy_after is not None:
        lines.append(f"held-out accuracy: {summary.accuracy_before:.3f} before, {summary.accuracy_after:.3f} after")
    lines.append(f"parity: {summary.tokens_different} of {summary.tokens_compared} tokens differ")
    lines.append(f"{summary.seconds:.0f} s; everything is in {path}")
    return lines


def _plain(config: TrainConfig) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config), default=str))
