"""Compressed parts of a page's data."""

from __future__ import annotations

import base64
import gzip
from dataclasses import fields, is_dataclass
from typing import Any

from rlsync.telemetry.json_text import to_json

_LEVEL = 6


def encode(value: Any) -> str:
    """Return the JSON of a value as gzip in base64, which a page decodes when it needs it."""
    return base64.b64encode(gzip.compress(dumps(value).encode(), _LEVEL, mtime=0)).decode()


def dumps(value: Any) -> str:
    """Return the JSON of a value in which dataclasses are objects."""
    return to_json(_plain(value))


def _plain(value: Any) -> Any:
    """Return dataclasses as dictionaries. Other values are not copied, which asdict would do for each number."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, list) and value and is_dataclass(value[0]):
        return [_plain(each) for each in value]
    return value


def decode(chunk: str) -> bytes:
    """Return the JSON of a chunk."""
    return gzip.decompress(base64.b64decode(chunk))


class Budget:
    """The number of characters that chunks may still take.

    Args:
        left: The number at the beginning.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, chunk: str) -> bool:
        """Return whether the chunk fits, and if so count it."""
        if len(chunk) > self.left:
            return False
        self.left -= len(chunk)
        return True
