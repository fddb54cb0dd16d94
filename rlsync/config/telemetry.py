"""Configuration of wandb, TensorBoard and the saved rollouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rlsync.config.numbers import check_counts
from rlsync.errors import ConfigError


class WandbMode(StrEnum):
    """Whether metrics go to wandb."""

    auto = "auto"
    """The mode that WANDB_MODE names, if it is set. Otherwise online if this machine is logged in to wandb and reaches
    it, and offline if not."""
    online = "online"
    """Online, or the run does not start."""
    offline = "offline"
    """Write wandb's files into the run folder only; `wandb sync` sends them later."""
    disabled = "disabled"
    """Do not start wandb."""


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
    """Configuration of telemetry (docs/watching.md)."""

    wandb: WandbMode = WandbMode.auto
    project: str = ""
    """Project in wandb; empty = WANDB_PROJECT, or rlsync."""
    entity: str | None = None
    """User or team in wandb; null = WANDB_ENTITY, or the default of the account."""
    console: ConsoleStyle = ConsoleStyle.auto
    tags: list[str] = field(default_factory=list)
    """Tags besides the recipe, the algorithm and the family of the model."""
    samples_every: int = 10
    """Number of steps between two tables of samples; the first and the last step have one too; 0 = no tables."""
    samples: int = 16
    """Number of samples in a table, spread evenly over the step's samples."""
    samples_logprobs: int = 4
    """Number of samples of a table that show their tokens and log-probs."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard, into the folder tensorboard of the run folder."""
    save_rollouts: bool = True
    """Write every rollout to rollouts.jsonl, with the bits of its log-probs in hex."""

    def __post_init__(self) -> None:
        check_counts("telemetry", {"samples": self.samples})
        for name, value in {"samples_every": self.samples_every, "samples_logprobs": self.samples_logprobs}.items():
            if value < 0:
                raise ConfigError(f"telemetry.{name}={value}: must not be negative; 0 turns it off")
        for tag in self.tags:
            if not 1 <= len(tag) <= 64:
                raise ConfigError(f"telemetry.tags: {tag!r} has {len(tag)} characters, and wandb takes tags of 1 to 64")
