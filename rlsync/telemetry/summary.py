"""The summary of a run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Summary:
    """Results that the end of a run prints and summary.json stores."""

    steps: int = 0
    reward_first: float = 0.0
    reward_last: float = 0.0
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    tokens_sampled: int = 0
    tokens_compared: int = 0
    tokens_different: int = 0
    rows_compared: int = 0
    rows_different: int = 0
    draws_different: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    """Alarms that fired, as `NAME at step N`."""
    wandb: str = ""
    """Address of the run in wandb, or the command that uploads an offline run; empty without wandb."""
