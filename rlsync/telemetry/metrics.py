"""Types of a step's metrics and of the times of its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("sync", "rollout", "reward", "scoring", "train", "eval", "save", "step")
"""Stages of a step. Scoring runs during rollout and reward; the others follow one another within step."""

Metrics = dict[str, float]
"""Values of one step by metric key."""


@dataclass(slots=True, kw_only=True)
class StepTimes:
    """Seconds of each stage of a step; 0 if the stage did not run."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    on_stage: Callable[[str], None] = lambda _: None
    """Called with the name of each stage when it begins."""

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        self.on_stage(stage)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started
