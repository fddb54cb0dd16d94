"""Resume a run: find its newest checkpoint, and check what has changed since."""

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
from rlsync.telemetry.names import CHECKPOINTS, CONFIG
from rlsync.telemetry.run_folder import ended, last_step, results


def checkpoint_to_resume(config: TrainConfig, console: ConsoleReporter) -> tuple[Path | None, Progress]:
    """Return the checkpoint to resume from and its progress; None and an empty progress to start at step 1.

    Raises:
        ConfigError: The checkpoint cannot be read, it has all steps already, or results of a run would be overwritten.
    """
    path = config.run.folder
    if not config.run.resume:
        if there := results(path):
            go_on = "Resume that run with run.resume=true, give" if resumable(path / CHECKPOINTS) else "Give"
            raise ConfigError(
                f"run.dir={path} already has the results of a run ({there.relative_to(path)}). {go_on} another "
                "run.dir, or remove the folder."
            )
        return None, Progress()
    found, last = newest(path / CHECKPOINTS), last_step(path)
    if found is None:
        _check_may_begin(config, path, last)
        dropped = f"; the {last} steps logged so far will be discarded" if last else ""
        console.say(f"no checkpoint to resume from in {path / CHECKPOINTS}: starting at step 1{dropped}")
        return None, Progress()
    folder, progress = found
    if progress.step >= config.trainer.steps:
        raise ConfigError(
            f"run.resume=true: {folder} is the checkpoint of step {progress.step}, and "
            f"trainer.steps={config.trainer.steps} asks for no further step. Raise trainer.steps to continue, or start "
            f"a new run from its weights, in another run.dir: model.path={folder}."
        )
    saved_shapes(folder)  # to raise its errors before anything is started
    console.say(f"resuming after step {progress.step} from {folder}")
    if last > progress.step:
        console.say(f"steps {progress.step + 1} to {last} have no checkpoint and will be repeated")
    return folder, progress


def _check_may_begin(config: TrainConfig, path: Path, last: int) -> None:
    """Raise ConfigError if the folder has more than the first steps of a run, which a resume may discard."""
    if ended(path) or last > config.trainer.save_every:  # after that step a run with save_every has a checkpoint
        raise ConfigError(
            f"run.resume=true: the run in {path} has reached step {last}, but no checkpoint there has the trainer's "
            "state (trainer.save_every saves it, and progress.json marks it as complete). Start a new run in another "
            f"run.dir, from this run's weights if it saved any (model.path={path / CHECKPOINTS}/step_N), or remove the "
            "folder."
        )


def go_on(
    checkpoint: Path, progress: Progress, prompts: PromptStream, config: TrainConfig, console: ConsoleReporter
) -> None:
    """Restore the position in the prompts, and tell the user which settings have changed since the checkpoint.

    Args:
        checkpoint: Folder of the checkpoint.
        progress: The checkpoint's progress.
        prompts: The prompt stream to restore.
        config: The run's configuration.
        console: Where changes are reported.

    Raises:
        ConfigError: The earlier configuration cannot be read, or its state has other tensors than this run needs.
        DataError: The problems before the checkpoint would be different now.
    """
    for difference in differences(config.run.folder / CONFIG, config):
        if _changes_state(difference):
            raise ConfigError(
                f"run.resume=true: {difference}, so the state in {checkpoint} has other tensors than this "
                "run trains. Undo the change, or start a new run from the weights, in another run.dir: "
                f"model.path={checkpoint}"
            )
        console.say(f"changed since the checkpoint: {difference}")
    prompts.restore(progress.prompts)


def _changes_state(difference: Difference) -> bool:
    """Whether the trainer's state needs other tensors: the adapters' rank changed, or a critic was added or removed."""
    if difference.key == "algorithm.advantage":
        return AdvantageKind.gae in (difference.old, difference.new)
    return difference.key == "model.lora.rank"
