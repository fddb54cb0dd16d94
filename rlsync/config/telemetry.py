"""Configuration of wandb and of the saved rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WandbMode(StrEnum):
    """Whether metrics go to wandb."""

    auto = "auto"
    """Online when logged in to wandb, offline otherwise."""
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(kw_only=True, slots=True)
class TelemetryConfig:
    """Configuration of telemetry."""

    wandb: WandbMode = WandbMode.auto
    project: str = "rlsync"
    entity: str | None = None
    save_rollouts: bool = True
    """Write every rollout to rollouts.jsonl, with the bits of its log-probs in hex."""
