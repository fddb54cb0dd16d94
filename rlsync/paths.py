"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str) -> Path:
    """With ~ and ~user as their homes; where there is no such user, as it is written, as in a shell."""
    return Path(os.path.expanduser(path))
