"""FSDP2 training."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.config.numbers import check_counts
from rlsync.errors import ConfigError


class Schedule(StrEnum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class NonFinitePolicy(StrEnum):
    skip = "skip"
    """Leave the update out and count it."""
    stop = "stop"


@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    steps: int = 100
    ranks: int = 1
    """FSDP ranks, one Ray actor each."""
    lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Schedule = Schedule.constant
    """What the learning rate does after the warm-up; linear and cosine end at min_lr_ratio * lr."""
    min_lr_ratio: float = 0.0
    max_grad_norm: float = 1.0
    minibatches: int = 1
    """Optimiser steps per pass over the step's rollouts."""
    epochs: int = 1
    """Passes over the step's rollouts; only the first one's first minibatch is exactly on policy."""
    micro_batch_tokens: int = 4096
    """Most rows of one forward pass of a rank (a longer single sequence makes its own)."""
    prefix_tree: bool | None = None
    """Forward each prefix that samples share once in a pack, with the bits of samples apart. null: on CPUs; a GPU takes
    `true`, once tests/gpu/test_tree.py has passed there. Only with kernels=invariant: native ones forward samples
    apart whatever this says."""
    gradient_checkpointing: bool = True
    nonfinite: NonFinitePolicy = NonFinitePolicy.skip
    save_every: int = 0
    """Save Hugging Face weights every n steps and, for run.resume, the trainer's state, which the newest checkpoint
    alone keeps (12 bytes a parameter); 0 = weights alone, at the end."""
    save_keep: int = 0
    """Checkpoints of the run to keep, the newest; 0 = all."""
    threads_per_rank: int = 1
    """CPU threads of a rank; fixed, because a library's sums may depend on it."""

    def __post_init__(self) -> None:
        counts = {
            "steps": self.steps,
            "ranks": self.ranks,
            "minibatches": self.minibatches,
            "epochs": self.epochs,
            "micro_batch_tokens": self.micro_batch_tokens,
            "threads_per_rank": self.threads_per_rank,
        }
        check_counts("trainer", counts)
        switches = {"save_every": self.save_every, "save_keep": self.save_keep, "warmup_steps": self.warmup_steps}
        for name, value in switches.items():
            if value < 0:
                raise ConfigError(f"trainer.{name}={value}: must not be negative (0 turns it off)")
        self._check_optimiser()

    def _check_optimiser(self) -> None:
        if self.lr < 0:
            raise ConfigError(f"trainer.lr={self.lr}: must not be negative")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(
                f"trainer.betas={list(self.betas)}: want two numbers of at least 0 and less than 1, for example "
                "trainer.betas=[0.9,0.95]"
            )
        if self.adam_eps <= 0 or self.weight_decay < 0:
            raise ConfigError(
                f"trainer.adam_eps={self.adam_eps}, trainer.weight_decay={self.weight_decay}: want a positive eps, and "
                "no negative decay"
            )
        if not 0 <= self.min_lr_ratio <= 1:
            raise ConfigError(
                f"trainer.min_lr_ratio={self.min_lr_ratio}: want a share of trainer.lr, at least 0 and at most 1"
            )
        if self.max_grad_norm <= 0:
            raise ConfigError(f"trainer.max_grad_norm={self.max_grad_norm}: must be positive (use inf for no clipping)")
