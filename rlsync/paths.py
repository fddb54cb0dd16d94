"""Paths that users give: expansion of ~ and checks."""

from __future__ import annotations

import os
from pathlib import Path

from rlsync.errors import ConfigError


def expanded(path: str) -> Path:
    """Return the path with ~ and ~user expanded. If there is no such user the path is unchanged, as in a shell."""
    return Path(os.path.expanduser(path))


def check_home() -> None:
    """Raise ConfigError if ~ cannot be expanded, as in a container whose user has an id but no account."""
    if os.path.expanduser("~") == "~":
        raise ConfigError(
            f"HOME is not set, and user id {os.getuid()} has no home folder, in which libraries keep their settings "
            "and caches. Set HOME to a writable folder, for example HOME=/tmp/home"
        )


def check_writable(path: Path, field: str) -> None:
    """Make a folder, and check that files can be written there.

    Args:
        path: The folder.
        field: The configuration field that names the folder, for messages.

    Raises:
        ConfigError: The folder cannot be made, or is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK | os.X_OK)
        why = "no permission"
    except OSError as error:
        writable, why = False, str(error)
    if not writable:
        raise ConfigError(f"{field}={path}: nothing can be written there ({why}). Give another folder.")
