"""One run at a time in a run folder."""

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
"""Within a run's folder. The lock itself is the kernel's and ends with the process, however that ends; the file
stays, as one that came and went could be opened by one run and made anew by another."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""As network file systems may say."""
_log = logging.getLogger(__name__)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The folder `path`, made if need be, for this process alone. One that was made for nothing goes.

    Raises:
        ConfigError: it cannot be written, or another run or evaluation has it.
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


def _open(path: Path) -> IO[str]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        return (path / LOCK).open("w")
    except OSError as error:
        raise _unwritable(path, error) from error


def _lock(file: IO[str], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = os.fstat(file.fileno()).st_nlink > 0  # if not, whoever had it removed the file after it was opened here
    except BlockingIOError:
        free = False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _unwritable(path, error) from error
        _log.warning("run.dir=%s: its file system knows no locks (%s), so nothing keeps a second run away", path, error)
        free = True
    if not free:
        raise ConfigError(
            f"run.dir={path}: another run or evaluation is writing there. Wait until it ends, or give this one another "
            "run.dir."
        )


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"run.dir={path}: nothing can be written there ({error}). Give a folder that can be made and written."
    )
