"""Where a run goes on from: its newest checkpoint, and what has changed since."""

from __future__ import annotations

from pathlib import Path

from rlsync.checkpoint.progress import Progress, newest, resumable
from rlsync.checkpoint.state import saved_shapes
from rlsync.config.algorithm import AdvantageKind
from rlsync.config.compose import Difference, differences
from rlsync.config.run import TrainConfig
from rlsync.data.prompts import PromptStream
from rlsync.errors import ConfigError
from rlsync.telemetry.console import ConsoleReporter
from rlsync.telemetry.run_folder import CHECKPOINTS, CONFIG, ended, last_step, results


def checkpoint_to_resume(config: TrainConfig, console: ConsoleReporter) -> tuple[Path | None, Progress]:
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


def go_on(
    checkpoint: Path, progress: Progress, prompts: PromptStream, config: TrainConfig, console: ConsoleReporter
) -> None:
    """Go on where the checkpoint was, and say what is otherwise now.

    Raises:
        ConfigError: the run's configuration cannot be read, or had the trainer save other tensors.
        DataError: the problems so far would be others now.
    """
    for difference in differences(config.run.folder / CONFIG, config):
        if _changes_state(difference):
            raise ConfigError(
                f"run.resume=true: {difference}, so the state in {checkpoint} holds other tensors than this run "
                f"trains. Set it back, or begin with the weights, in another run.dir: model.path={checkpoint}"
            )
        console.say(f"changed since the checkpoint: {difference}")
    prompts.restore(progress.prompts)


def _changes_state(difference: Difference) -> bool:
    """Whether the trainer's state has other tensors: the adapters' rank changed, or a critic comes or goes."""
    if difference.key == "algorithm.advantage":
        return AdvantageKind.gae in (difference.old, difference.new)
    return difference.key == "model.lora.rank"
