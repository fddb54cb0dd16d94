"""A folder of the run's own for the files and sockets of its Ray session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlsync.errors import ConfigError, WorkerDiedError

_ROOM = 27
"""Bytes of a temporary folder's path at most: a socket's may have 107, and Ray and the folder's own name take 80."""
_OTHERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders to take where TMPDIR is too long, as those of a batch system's jobs are."""


@contextmanager
def session_folder() -> Iterator[Path]:
    """A new folder that only this user can read; it goes at the end, but stays for its logs where a worker has died.

    Ray's default, /tmp/ray, may belong to another user.

    Raises:
        ConfigError: there is no place for one.
    """
    folder = _make()
    try:
        yield folder
    except WorkerDiedError as error:
        error.message = f"{error.message} Ray's logs of the run are in {folder}/session_latest/logs."
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def needs_short_tmpdir() -> bool:
    """Whether sockets of the actors (vLLM's, Python's) would have no room in TMPDIR either."""
    return not _fits(tempfile.gettempdir())


def _make() -> Path:
    places = [os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), *_OTHERS]
    for place in filter(_fits, places):
        try:
            return Path(tempfile.mkdtemp(prefix="rlsync-", dir=place))
        except OSError:
            continue
    raise ConfigError(
        f"TMPDIR={places[0]}: Ray's sockets have no room there or in {', '.join(_OTHERS)}. Set TMPDIR to a folder that "
        f"can be written and whose path has at most {_ROOM} characters."
    )


def _fits(place: str) -> bool:
    return len(os.fsencode(place)) <= _ROOM
