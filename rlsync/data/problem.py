"""A problem of a data source, and the splits that sources are divided into."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Split(StrEnum):
    """Use of a problem; a hash of its prompt decides."""

    train = "train"
    warm_start = "warm_start"
    held_out = "held_out"


@dataclass(slots=True, kw_only=True)
class Problem:
    """One task: its prompt, its answer, and what its scorer needs."""

    id: str
    """Digest of the prompt, which is the same in all runs."""
    prompt: str
    """User text, before any chat template."""
    answer: str
    metadata: dict[str, Any] = field(default_factory=dict)
    """The source's own record, which the scorer gets unchanged."""
    part: str = ""
    """Name of the mixture's part that the problem comes from; empty for data without parts."""
    origin: str = field(default="", compare=False)
    """Row and column of the answer, for messages; empty for a generated problem."""
    structured: bool = False
    """Whether the answer was a list or an object in the data; then `answer` is its JSON text."""
