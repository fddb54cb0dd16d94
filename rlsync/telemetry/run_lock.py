"""A lock that allows one run at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rlsync.errors import ConfigError

LOCK = ".lock"
"""Name of the lock file in a run folder. The kernel releases the lock when the process ends in any way. The file stays:
if it were removed, one run could hold the old file and another run a new one."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""Errors of file systems without locks, as network file systems may be."""
_LOCKS = Path("/proc/locks")
"""The kernel's list of locks."""
_log = logging.getLogger(__name__)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock the folder `path` for this process. It is made if needed, and removed again if it stays empty.

    Raises:
        ConfigError: The folder cannot be written, or another run or evaluation uses it.
    """
    made = not path.exists()
    with _open(path) as file:
        _lock(file, path)
        try:
            yield
        finally:
            if made and [each.name for each in path.iterdir()] == [LOCK]:
                with suppress(OSError):
                    (path / LOCK).unlink()
                    path.rmdir()


def is_held(path: Path) -> bool:
    """Whether a process on this machine has locked the folder `path`. The lock is not touched."""
    try:
        inode = (path / LOCK).stat().st_ino
        locks = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return any(line.split()[1:2] == ["FLOCK"] and line.split()[5].endswith(f":{inode}") for line in locks)


def _open(path: Path) -> IO[str]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        return (path / LOCK).open("w")
    except OSError as error:
        raise _unwritable(path, error) from error


def _lock(file: IO[str], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = os.fstat(file.fileno()).st_nlink > 0  # 0: its last holder removed the file after it was opened here
    except BlockingIOError:
        free = False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _unwritable(path, error) from error
        _log.warning(
            "run.dir=%s: its file system has no locks (%s), so a second run in this folder is not prevented",
            path,
            error,
        )
        free = True
    if not free:
        raise ConfigError(
            f"run.dir={path}: another run or evaluation is writing there. Wait until it ends, or give this one another "
            "run.dir."
        )


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"run.dir={path}: nothing can be written there ({error}). Give a folder that can be made and is writable."
    )
