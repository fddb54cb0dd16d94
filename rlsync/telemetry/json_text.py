"""JSON as its standard has it, which knows no NaN and no infinity."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any


def to_json(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON that UTF-8 can encode: what is not finite becomes null, half a surrogate pair its escape."""
    write = partial(json.dumps, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text = write(value)
    except ValueError:  # something is not finite; to look at every token of a rollout first takes longer than to write
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
