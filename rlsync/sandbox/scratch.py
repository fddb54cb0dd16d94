"""A folder that a confined program may write to: check how full it is, and remove it safely."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_ENTRIES = 1000
MOST_BYTES = 1 << 24
_PREFIX = "rlsync-sandbox-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        yield folder
    finally:
        remove(folder)


def overfull(folder: Path) -> bool:
    """Whether the folder has more than MOST_ENTRIES entries, takes more than MOST_BYTES of disk, or cannot be searched.

    The search stops at these limits, so a program that makes files quickly cannot prolong it.
    """
    entries = taken = 0
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    taken += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entries > MOST_ENTRIES or taken > MOST_BYTES:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:  # removed in the meantime
            continue
        except OSError:  # the path is too long, or the folder is not readable
            return True
    return False


def remove(folder: Path) -> None:
    """Remove a folder that no process uses any more.

    It needs neither recursion nor long paths: before a folder is removed, its contents are moved to the top.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    new_name, moved = secrets.token_hex(8), 0  # a name that the program cannot have used
    try:
        while names := os.listdir(top):
            for name in names:
                if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=top)
                    continue
                os.chmod(name, stat.S_IRWXU, dir_fd=top)
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                try:
                    for content in os.listdir(inner):
                        _make_movable(content, inner)
                        os.rename(content, f"{new_name}-{moved}", src_dir_fd=inner, dst_dir_fd=top)
                        moved += 1
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def _make_movable(name: str, folder: int) -> None:
    """Make a folder writable, because moving it changes its `..` entry."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.chmod(name, stat.S_IRWXU, dir_fd=folder)
