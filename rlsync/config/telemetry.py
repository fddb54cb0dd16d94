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


class ConsoleStyle(StrEnum):
    """How a run writes to the console."""

    auto = "auto"
    """`rich` on a terminal, `plain` elsewhere."""
    plain = "plain"
    """One line a step."""
    rich = "rich"
    """A live view with stage, reward, parity light, speed and the time left."""
    json = "json"
    """One JSON object a line: messages, steps with all their metrics, and tables."""
    quiet = "quiet"
    """Only the results at the end."""


@dataclass(kw_only=True, slots=True)
class TelemetryConfig:
    """Configuration of telemetry."""

    wandb: WandbMode = WandbMode.auto
    project: str = "rlsync"
    entity: str | None = None
    console: ConsoleStyle = ConsoleStyle.auto
    save_rollouts: bool = True
    """Write every rollout to rollouts.jsonl, with the bits of its log-probs in hex."""
