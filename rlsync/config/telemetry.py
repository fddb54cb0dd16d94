"""Where metrics go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WandbMode(StrEnum):
    auto = "auto"
    """Online when logged in to wandb, offline otherwise."""
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(kw_only=True, slots=True)
class TelemetryConfig:
    wandb: WandbMode = WandbMode.auto
    project: str = "rlsync"
    entity: str | None = None
    save_rollouts: bool = True
    """Write every rollout, log-probs as bits in hex, to rollouts.jsonl."""
