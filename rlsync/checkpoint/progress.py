"""How far a run was at a checkpoint. The file progress.json is written last and marks the checkpoint as complete."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rlsync.checkpoint.state import FOLDER
from rlsync.data.prompts import PromptState
from rlsync.errors import unreadable
from rlsync.telemetry.summary import Summary

_FILE = "progress.json"
_STEP = re.compile(r"step_\d+")
"""Names of checkpoints (telemetry/run_folder.py)."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """The progress of a run; by default that of a run which begins."""

    step: int = 0
    """Number of finished training steps."""
    prompts: PromptState = field(default_factory=PromptState)
    """State of the prompt stream."""
    summary: Summary = field(default_factory=Summary)
    """Summary of the steps so far."""
    wandb_id: str | None = None
    """Id of the run in wandb; None without wandb."""
    saved: list[int] = field(default_factory=list)
    """Steps of all checkpoints of the run, including this one."""


def newest(checkpoints: Path) -> tuple[Path, Progress] | None:
    """Find the complete checkpoint with the most steps.

    Args:
        checkpoints: the run's folder of checkpoints, which need not exist.

    Returns:
        The folder of the checkpoint and its progress; None if there is no complete checkpoint.

    Raises:
        ConfigError: a progress.json cannot be read.
    """
    found = [(path, _read(path / _FILE)) for path in _whole(checkpoints)]
    return max(found, key=lambda each: each[1].step, default=None)


def resumable(checkpoints: Path) -> bool:
    """Whether the folder of checkpoints has a complete one, from which a run can be resumed."""
    return bool(_whole(checkpoints))


def keep(folder: Path, progress: Progress) -> None:
    """Mark the checkpoint in `folder` as complete, and remove the trainer's states of the run's other checkpoints.

    The run's other checkpoints are the step_N folders of `progress.saved`. Links and all other folders belong to the
    user and are not touched.
    """
    partial = folder / f"{_FILE}.partial"
    with partial.open("w") as file:
        file.write(json.dumps(asdict(progress), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder / _FILE)
    mine = {f"step_{step}" for step in progress.saved} - {folder.name}
    for other in (path for path in _steps(folder.parent) if path.name in mine):
        (other / _FILE).unlink(missing_ok=True)
        shutil.rmtree(other / FOLDER, ignore_errors=True)


def _whole(checkpoints: Path) -> list[Path]:
    """The folders of complete checkpoints."""
    return [path for path in _steps(checkpoints) if (path / _FILE).is_file()]


def _steps(checkpoints: Path) -> list[Path]:
    """The step_N folders, without links to such folders."""
    paths = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return [path for path in paths if _STEP.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]


def _read(path: Path) -> Progress:
    try:
        values = json.loads(path.read_text())
        return Progress(
            step=values["step"],
            prompts=PromptState(**values["prompts"]),
            summary=Summary(**values["summary"]),
            wandb_id=values["wandb_id"],
            saved=values["saved"],
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = f"{type(error).__name__}: {error}"
        raise unreadable(path, "a run's progress", why, str(path.parent)) from error
