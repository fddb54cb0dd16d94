"""Configuration of PPO's critic, which estimates the reward to come at each token."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.errors import ConfigError


@dataclass(kw_only=True, slots=True)
class CriticConfig:
    """Configuration of the critic, which exists only with algorithm.advantage=gae.

    Betas, weight decay, schedule and gradient clipping are those of the trainer.
    """

    path: str = ""
    """Folder or hub id to start from: a saved critic, a reward model with one score, or a causal LM, whose value head
    starts at 0. Empty = the policy's initial model."""
    lr: float = 1e-5
    """Learning rate; trainer.warmup_steps and trainer.schedule apply to it."""
    adam_eps: float = 1e-8
    """AdamW's epsilon."""
    clip: float = 0.2
    """Values are clipped to this distance from what they were before the step (algorithms/value_loss.py); 0 = off."""
    warmup_steps: int = 0
    """Number of steps at the beginning of the run in which only the critic trains."""

    def __post_init__(self) -> None:
        if self.lr < 0 or self.clip < 0 or self.warmup_steps < 0 or self.adam_eps <= 0:
            raise ConfigError(
                f"critic.lr={self.lr}, critic.clip={self.clip}, critic.warmup_steps={self.warmup_steps}, "
                f"critic.adam_eps={self.adam_eps}: none may be negative, and adam_eps must be positive"
            )
