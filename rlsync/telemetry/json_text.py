"""Standard JSON, which has neither NaN nor infinity."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return the value as JSON that UTF-8 can encode.

    NaN and infinity become null, and half of a surrogate pair becomes an escape sequence.
    """
    write = partial(json.dumps, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text = write(value)
    except ValueError:  # some value is not finite; checking all values before would take longer than writing them
        text = write(_finite(value))
    return text.encode(errors="backslashreplace").decode()


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
    return value
