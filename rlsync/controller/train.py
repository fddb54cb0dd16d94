"""Run a training run: prepare, start the actors, loop, report, clean up."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rlsync.cluster.actor_set import Cluster
from rlsync.cluster.groups import RolloutGroup, TrainerGroup
from rlsync.cluster.placement import placement
from rlsync.cluster.run_plan import plan_run
from rlsync.cluster.session import ray_session, terminate_as_interrupt
from rlsync.config.run import TrainConfig
from rlsync.controller.assemble import prepare
from rlsync.controller.evaluator import Evaluator
from rlsync.controller.loop import TrainingLoop
from rlsync.controller.resume import checkpoint_to_resume, go_on
from rlsync.controller.sinks import describe, open_sinks
from rlsync.data.prompts import PromptStream
from rlsync.paths import check_home
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.parity_text import parity_text
from rlsync.telemetry.run_lock import held
from rlsync.telemetry.summary import Summary
from rlsync.telemetry.wandb_mode import WandbChoice
from rlsync.telemetry.wandb_sink import wandb_line
from rlsync.weight_sync.sync import WeightSync


def train(config: TrainConfig, console: ConsoleReporter, choice: WandbChoice, command: str = "") -> Summary:
    """Run a training run, from the configuration to summary.json.

    Args:
        config: The run's configuration.
        console: Where the run is reported.
        choice: Where its metrics go, from `choose_destinations`.
        command: The command line, for the notes in wandb.

    Raises:
        RlsyncError: The run failed. The error has the message for the user, and every process of the run has ended.
    """
    check_home()
    path = config.run.folder
    with held(path):
        summary = _run(config, console, choice, command)
    for line in summary_lines(summary, path):
        console.say(line, result=True)
    return summary


def _run(config: TrainConfig, console: ConsoleReporter, choice: WandbChoice, command: str) -> Summary:
    checkpoint, progress = checkpoint_to_resume(config, console)
    prepared = prepare(config, console.say)
    prompts = PromptStream(prepared.training, config.seed, config.data.weights)
    if checkpoint:
        go_on(checkpoint, progress, prompts, config, console)
    plan = plan_run(config, prepared.models, trains=True)
    console.say(placement(config, ranks=plan.ranks))
    with ExitStack() as sinks_open, ray_session(config, plan), terminate_as_interrupt():
        started = time.perf_counter()
        console.say("starting the actors, which load torch, vLLM and the model (20 to 90 s on most machines)")
        cluster = Cluster(config, plan, reward_models=prepared.reward_models)
        console.say(f"all actors are ready after {time.perf_counter() - started:.0f} s")
        try:
            rollouts, trainer = RolloutGroup(cluster, config, console.progress), TrainerGroup(cluster, config)
            if checkpoint:
                trainer.load(str(checkpoint), progress.step)
            about = describe(config, prepared.models, cluster, progress, command) if choice.writes else None
            sinks = sinks_open.enter_context(open_sinks(config, progress, console, choice, about))
            loop = TrainingLoop(
                config,
                trainer=trainer,
                rollouts=rollouts,
                weights=WeightSync(rollouts),
                scorer=prepared.scorer,
                codec=prepared.codec,
                prompts=prompts,
                evaluator=Evaluator(config, rollouts, prepared.sets),
                sinks=sinks,
                progress=progress,
            )
            summary = loop.run()
            summary.wandb = sinks.wandb.place
            sinks.folder.write_summary(asdict(summary))
        finally:
            cluster.close()
    return summary


def summary_lines(summary: Summary, path: Path) -> list[str]:
    """Return the lines that the end of a run prints; `path` is the run folder."""
    lines = [f"reward: {summary.reward_first:.3f} at step 1, {summary.reward_last:.3f} at step {summary.steps}"]
    if summary.accuracy_before is not None and summary.accuracy_after is not None:
        lines.append(f"held-out accuracy: {summary.accuracy_before:.3f} before, {summary.accuracy_after:.3f} after")
    text = parity_text(
        sampled=summary.tokens_sampled,
        compared=summary.tokens_compared,
        different=summary.tokens_different,
        rows_different=summary.rows_different,
    )
    lines.append(f"parity: {text}")
    if summary.alarms:
        lines.append(f"alarms: {', '.join(summary.alarms)} (alarms.jsonl has the messages)")
    if summary.wandb:
        lines.append(wandb_line(summary.wandb))
    lines.append(f"{summary.seconds:.0f} s; all results are in {path}")
    return lines
