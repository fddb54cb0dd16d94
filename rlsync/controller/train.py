"""Run a training: prepare, start the actors, loop, report, clean up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlsync.checkpoint.progress import Progress, newest, resumable
from rlsync.checkpoint.state import saved_shapes
from rlsync.cluster.groups import Cluster, RolloutGroup, TrainerGroup
from rlsync.cluster.placement import placement
from rlsync.cluster.session import ray_session, terminate_as_interrupt
from rlsync.config.algorithm import AdvantageKind
from rlsync.config.compose import differences, to_yaml
from rlsync.config.run import TrainConfig
from rlsync.controller.assemble import prepare
from rlsync.controller.evaluator import Evaluator
from rlsync.controller.loop import Sinks, TrainingLoop
from rlsync.data.prompts import PromptStream
from rlsync.errors import ConfigError
from rlsync.paths import check_home
from rlsync.redact import redacted
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.run_folder import CHECKPOINTS, CONFIG, RunFolder, ended, last_step, results
from rlsync.telemetry.run_lock import held
from rlsync.telemetry.summary import Summary
from rlsync.telemetry.wandb_sink import WandbSink


def train(config: TrainConfig, console: ConsoleReporter) -> Summary:
    """One training run, from the configuration to summary.json.

    Raises:
        RlsyncError: with the one message that the user is to read; every process of the run has ended.
    """
    check_home()
    path = config.run.folder
    with held(path):
        summary = _run(config, console)
    for line in summary_lines(summary, path):
        console.say(line)
    return summary


def _run(config: TrainConfig, console: ConsoleReporter) -> Summary:
    checkpoint, progress = _checkpoint(config, console)
    prepared = prepare(config, console.say)
    prompts = PromptStream(prepared.training, config.seed, config.data.weights)
    if checkpoint:
        _join(checkpoint, progress, prompts, config, console)
    console.say(placement(config))
    with ExitStack() as sinks_open, ray_session(config), terminate_as_interrupt():
        started = time.perf_counter()
        cluster = Cluster(config, prepared.model_path, reward_models=prepared.reward_models)
        console.say(f"all actors are ready after {time.perf_counter() - started:.0f} s")
        try:
            rollouts, trainer = RolloutGroup(cluster, config), TrainerGroup(cluster, config)
            if checkpoint:
                trainer.load(str(checkpoint))
            sinks = sinks_open.enter_context(_sinks(config, progress, console))
            loop = TrainingLoop(
                config,
                trainer=trainer,
                rollouts=rollouts,
                scorer=prepared.scorer,
                codec=prepared.codec,
                prompts=prompts,
                evaluator=Evaluator(config, rollouts, prepared.sets),
                sinks=sinks,
                progress=progress,
            )
            summary = loop.run()
            sinks.folder.write_summary(asdict(summary))
        finally:
            cluster.close()
    return summary


@contextmanager
def _sinks(config: TrainConfig, progress: Progress, console: ConsoleReporter) -> Iterator[Sinks]:
    """Where the run reports to. Its folder changes from here on, when nothing can be wrong with a resume any more."""
    path, exit_code = config.run.folder, 1
    wandb = WandbSink(config.telemetry, config.run.name, path, _plain(config), progress.wandb_id)
    try:
        folder = RunFolder(path, to_yaml(config), progress.step)
        try:
            yield Sinks(folder=folder, wandb=wandb, console=console)
        finally:
            folder.close()
        exit_code = 0
    finally:
        wandb.finish(exit_code)


def _checkpoint(config: TrainConfig, console: ConsoleReporter) -> tuple[Path | None, Progress]:
    """The checkpoint that the run is to go on from, if there is one, and where it stands.

    Raises:
        ConfigError: it cannot be read, has done all its steps, or a run's results would be written over.
    """
    path = config.run.folder
    if not config.run.resume:
        if there := results(path):
            go_on = "Go on with that run by run.resume=true, give" if resumable(path / CHECKPOINTS) else "Give"
            raise ConfigError(
                f"run.dir={path}: a run's results are there already ({there.relative_to(path)}). {go_on} another "
                "run.dir, or remove the folder."
            )
        return None, Progress()
    found, last = newest(path / CHECKPOINTS), last_step(path)
    if found is None:
        _check_may_begin(config, path, last)
        dropped = f" anew, and its {last} steps so far go" if last else ""
        console.say(f"nothing to resume in {path / CHECKPOINTS} yet: the run begins{dropped}")
        return None, Progress()
    folder, progress = found
    if progress.step >= config.trainer.steps:
        raise ConfigError(
            f"run.resume=true: {folder} is of step {progress.step}, and trainer.steps={config.trainer.steps} asks for "
            "no more. Raise trainer.steps to train on, or begin with its weights, in another run.dir: "
            f"model.path={folder}."
        )
    saved_shapes(folder)  # for its errors, before anything is started
    console.say(f"going on after step {progress.step}, from {folder}")
    if last > progress.step:
        console.say(f"the steps from there to {last} left no state and are done again")
    return folder, progress


def _check_may_begin(config: TrainConfig, path: Path, last: int) -> None:
    """Raises ConfigError if what a run has done in the folder is no mere beginning that a resume may drop."""
    if ended(path) or last > config.trainer.save_every:  # past that step a state was kept, if ever
        raise ConfigError(
            f"run.resume=true: the run in {path} has come to step {last}, and no checkpoint there holds a state to go "
            "on from (trainer.save_every keeps one, and progress.json makes it whole). Begin in another run.dir, with "
            f"its weights where there are any (model.path={path / CHECKPOINTS}/step_N), or remove the folder."
        )


def _join(
    checkpoint: Path, progress: Progress, prompts: PromptStream, config: TrainConfig, console: ConsoleReporter
) -> None:
    """Go on where the checkpoint was, and say what is otherwise now.

    Raises:
        ConfigError: the run's configuration cannot be read, or had the trainer save other tensors.
        DataError: the problems so far would be others now.
    """
    for line in differences(config.run.folder / CONFIG, config):
        if _changes_state(line):
            raise ConfigError(
                f"run.resume=true: {line}, so the state in {checkpoint} holds other tensors than this run trains. Set "
                f"it back, or begin with the weights, in another run.dir: model.path={checkpoint}"
            )
        console.say(f"not as before: {line}")
    prompts.restore(progress.prompts)


def _changes_state(line: str) -> bool:
    """Whether a difference alone shows it: the adapters' rank, or a critic that comes or goes."""
    key, _, values = line.partition(": ")
    return key == "model.lora.rank" or (key == "algorithm.advantage" and AdvantageKind.gae in values.split(" -> "))


def summary_lines(summary: Summary, path: Path) -> list[str]:
    lines = [f"reward: {summary.reward_first:.3f} at step 1, {summary.reward_last:.3f} at step {summary.steps}"]
    if summary.accuracy_before is not None and summary.accuracy_after is not None:
        lines.append(f"held-out accuracy: {summary.accuracy_before:.3f} before, {summary.accuracy_after:.3f} after")
    lines.append(f"parity: {summary.tokens_different} of {summary.tokens_compared} tokens differ")
    lines.append(f"{summary.seconds:.0f} s; everything is in {path}")
    return lines


def _plain(config: TrainConfig) -> dict[str, Any]:
    return json.loads(redacted(json.dumps(asdict(config), default=str)))
