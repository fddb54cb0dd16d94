"""The metrics of a step, and the times of its stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("sync", "rollout", "reward", "scoring", "train", "eval", "save", "step")
"""Scoring runs beside rollout and reward; the others follow each other within step."""

Metrics = dict[str, float]
"""Metric key to value, of one step."""


@dataclass(slots=True, kw_only=True)
class StepTimes:
    """Seconds of each stage of a step; 0 where it did not run."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started
