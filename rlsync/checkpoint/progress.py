"""How far a run was at a checkpoint, beside the trainer's state; the file comes last and makes the checkpoint whole."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rlsync.checkpoint.state import FOLDER
from rlsync.data.prompts import PromptState
from rlsync.errors import unreadable
from rlsync.types import Summary

_FILE = "progress.json"


@dataclass(slots=True, kw_only=True)
class Progress:
    """By default that of a run which begins."""

    step: int = 0
    prompts: PromptState = field(default_factory=PromptState)
    summary: Summary = field(default_factory=Summary)
    wandb_id: str | None = None
    saved: list[int] = field(default_factory=list)
    """Steps of the run's checkpoints, this one's too."""


def newest(checkpoints: Path) -> tuple[Path, Progress] | None:
    """The whole checkpoint with the most steps in a run's folder of them, which need not exist.

    Raises:
        ConfigError: what one holds of its progress cannot be read.
    """
    found = [(path.parent, _read(path)) for path in checkpoints.glob(f"*/{_FILE}")]
    return max(found, key=lambda each: each[1].step, default=None)


def resumable(checkpoints: Path) -> bool:
    """Whether there is one to go on from."""
    return any(checkpoints.glob(f"*/{_FILE}"))


def keep(folder: Path, progress: Progress) -> None:
    """Mark the checkpoint in `folder` as whole, and free the states of the others beside it."""
    partial = folder / f"{_FILE}.partial"
    with partial.open("w") as file:
        file.write(json.dumps(asdict(progress), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder / _FILE)
    for other in (path for path in folder.parent.iterdir() if path.is_dir() and path != folder):
        (other / _FILE).unlink(missing_ok=True)
        shutil.rmtree(other / FOLDER, ignore_errors=True)


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
