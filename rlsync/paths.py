"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from rlsync.errors import ConfigError


def expanded(path: str) -> Path:
    """With ~ and ~user as their homes; where there is no such user, as it is written, as in a shell."""
    return Path(os.path.expanduser(path))


def check_home() -> None:
    """Raises ConfigError where ~ means nothing, as in a container whose user is only a number."""
    if os.path.expanduser("~") == "~":
        raise ConfigError(
            f"HOME is not set, and user id {os.getuid()} has no home folder: libraries keep their settings and caches "
            "there. Set HOME to a folder that can be written, for example HOME=/tmp/home"
        )


def check_writable(path: Path, field: str) -> None:
    """Make a folder; raises ConfigError if nothing can be written there.

    Args:
        field: of the configuration that names it, for messages.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK | os.X_OK)
        why = "no permission"
    except OSError as error:
        writable, why = False, str(error)
    if not writable:
        raise ConfigError(f"{field}={path}: nothing can be written there ({why}). Give another folder.")
