"""Where a run reports to, opened when its processes are ready; telemetry/destinations.py has decided on it before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from rlsync.checkpoint.progress import Progress
from rlsync.cluster.actor_set import Cluster
from rlsync.config.algorithm import LossKind
from rlsync.config.compose import to_yaml
from rlsync.config.run import TrainConfig
from rlsync.controller.step_log import Sinks
from rlsync.models.load import load_config
from rlsync.models.paths import ModelPaths
from rlsync.redact import redacted
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.provenance import Provenance, commit, versions
from rlsync.telemetry.run_folder import RunFolder
from rlsync.telemetry.tensorboard_sink import TensorboardSink
from rlsync.telemetry.wandb_mode import WandbChoice
from rlsync.telemetry.wandb_sink import RunDescription, WandbSink, wandb_line
from rlsync.telemetry.wandb_workspace import save_for_first_run

_PROJECT = "rlsync"
"""Project in wandb if the user names none."""


def describe(
    config: TrainConfig, models: ModelPaths, cluster: Cluster, progress: Progress, command: str
) -> RunDescription:
    """Return what wandb shows about a run. Of wandb's own variables, those for name, project, tags and notes are read.

    Args:
        config: The run's configuration.
        models: The resolved models.
        cluster: The actors, which know their device and their kernels.
        progress: Progress of the run.
        command: The command line.
    """
    environ, telemetry = os.environ, config.telemetry
    made = Provenance(
        commit=commit(Path.cwd()), versions=versions(), device=cluster.device_name(), kernels=cluster.fingerprint
    )
    family = load_config(models.policy, config.kernels.mode, config.model.revision_of(models.policy)).model_type
    loss = [] if config.algorithm.loss is LossKind.ppo_clip else [config.algorithm.loss.value]
    tags = [config.run.recipe, config.algorithm.name, *loss, family, *telemetry.tags]
    tags += environ.get("WANDB_TAGS", "").split(",")
    return RunDescription(
        project=telemetry.project or environ.get("WANDB_PROJECT") or _PROJECT,
        entity=telemetry.entity,
        name=environ.get("WANDB_NAME") or config.run.name,
        folder=config.run.folder,
        config=plain(config) | {"provenance": asdict(made)},
        run_id=progress.wandb_id,
        tags=list(dict.fromkeys(tag.strip()[:64] for tag in tags if tag.strip())),
        notes=environ.get("WANDB_NOTES") or redacted(command),
    )


@contextmanager
def open_sinks(
    config: TrainConfig, progress: Progress, console: ConsoleReporter, choice: WandbChoice, about: RunDescription | None
) -> Iterator[Sinks]:
    """Open what the run reports to. The run folder changes only from here on, after all checks of a resume.

    Args:
        config: The run's configuration.
        progress: Progress of the run.
        console: The console.
        choice: Where the metrics go.
        about: What wandb shows about the run; None if wandb is disabled.
    """
    path, exit_code = config.run.folder, 1
    wandb = WandbSink(choice, about, console.say)
    try:
        if about is not None and wandb.entity is not None:
            save_for_first_run(about.project, wandb.entity, console.say)
        with ExitStack() as stack:
            folder = RunFolder(path, to_yaml(config), progress.step)
            stack.callback(folder.close)
            tensorboard = TensorboardSink(path, progress.step) if config.telemetry.tensorboard else None
            if tensorboard is not None:
                stack.callback(tensorboard.close)
            yield Sinks(folder=folder, wandb=wandb, console=console, tensorboard=tensorboard)
        exit_code = 0
    finally:
        wandb.finish(exit_code)
        if exit_code and wandb.place:
            console.say(wandb_line(wandb.place))


def plain(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration for wandb, as config.yaml has it but without the texts of alarms."""
    values = yaml.safe_load(to_yaml(config))
    for alarm in values["alarms"].values():
        alarm.pop("advice", None)
    return values
