"""The folder for the files and sockets of a run's Ray session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlsync.errors import ConfigError, WorkerDiedError

_ROOM = 27
"""Most bytes in the path of a temporary folder: a socket's path may have 107, and Ray and the folder's name need 80."""
_OTHERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders to use if the path of TMPDIR is too long, as it often is in jobs of a batch system."""


@contextmanager
def session_folder(logs: Path | None = None) -> Iterator[Path]:
    """Make a folder that only this user can read, and remove it at the end. Ray's default may belong to another user.

    Args:
        logs: Folder to which the output of Ray and of all actors is moved at the end; None to discard it.

    Raises:
        ConfigError: No folder has a path that is short enough and can be written.
    """
    folder = _make()
    try:
        yield folder
    except WorkerDiedError as error:
        if kept := _keep_logs(folder, logs):
            error.message = f"{error.message} The output of all processes is in {kept}."
        raise
    finally:
        _keep_logs(folder, logs)
        shutil.rmtree(folder, ignore_errors=True)


def _keep_logs(folder: Path, logs: Path | None) -> Path | None:
    """Move the files with output to a folder of the session's name in `logs`; None if there is none to keep."""
    session = (folder / "session_latest").resolve()
    if logs is None or not session.is_dir():
        return None
    kept = logs / session.name
    for file in (session / "logs").glob("*"):
        if file.is_file() and file.stat().st_size:
            kept.mkdir(parents=True, exist_ok=True)
            shutil.move(file, kept / file.name)
    return kept if kept.is_dir() else None


def needs_short_tmpdir() -> bool:
    """Whether the path of TMPDIR is too long for the sockets that vLLM and Python make in the actors."""
    return not _fits(tempfile.gettempdir())


def _make() -> Path:
    places = [os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), *_OTHERS]
    for place in filter(_fits, places):
        try:
            return Path(tempfile.mkdtemp(prefix="rlsync-", dir=place))
        except OSError:
            continue
    raise ConfigError(
        f"TMPDIR={places[0]}: Ray's sockets cannot be made there or in {', '.join(_OTHERS)}. Set TMPDIR to a folder "
        f"that can be written and whose path has at most {_ROOM} characters."
    )


def _fits(place: str) -> bool:
    return len(os.fsencode(place)) <= _ROOM
