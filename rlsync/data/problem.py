"""A problem of a data source, and the splits that sources are divided into."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Split(StrEnum):
    train = "train"
    warm_start = "warm_start"
    held_out = "held_out"


@dataclass(slots=True, kw_only=True)
class Problem:
    """One task to solve: what the model reads, and what its scorer needs."""

    id: str
    """Stable across runs: a digest of the prompt."""
    prompt: str
    """User text, before any chat template."""
    answer: str
    metadata: dict[str, Any] = field(default_factory=dict)
    """The source's own record, handed to the scorer as it is."""
    part: str = ""
    """Name of the mixture's part that it is from; empty for data without parts."""
    origin: str = field(default="", compare=False)
    """Where its answer stands, row and column, for messages; empty for a problem that was made on the spot."""
    structured: bool = False
    """The answer was a list or an object in the data, and `answer` is its JSON text."""
