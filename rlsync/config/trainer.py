"""Configuration of FSDP2 training."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.config.numbers import check_counts
from rlsync.errors import ConfigError


class Schedule(StrEnum):
    """How the learning rate changes after the warm-up."""

    constant = "constant"
    """It stays at lr."""
    linear = "linear"
    """It falls in a straight line."""
    cosine = "cosine"
    """It falls along half a cosine."""


class NonFinitePolicy(StrEnum):
    """The action to take when a gradient or a log-prob is NaN or infinite."""

    skip = "skip"
    """Skip the update and count it."""
    stop = "stop"
    """Stop the run."""


@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """Configuration of the trainer."""

    steps: int = 100
    """Number of training steps; each is a round of rollouts and the updates on them."""
    ranks: int = 1
    """Number of FSDP ranks, each in a Ray actor of its own."""
    lr: float = 1e-6
    """Learning rate after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the averages of the gradient and of its square."""
    adam_eps: float = 1e-8
    """AdamW's epsilon, which is added to the root of the squared average. A larger value weakens updates with small
    gradients."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    warmup_steps: int = 0
    """Number of updates over which the learning rate rises linearly from 0 to lr."""
    schedule: Schedule = Schedule.constant
    """Course of the learning rate after the warm-up; linear and cosine end at min_lr_ratio * lr."""
    min_lr_ratio: float = 0.0
    """Learning rate at the end of a linear or cosine schedule, as a share of lr."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it; inf = no clipping."""
    minibatches: int = 1
    """Number of optimizer steps in each pass over the step's rollouts."""
    epochs: int = 1
    """Number of passes over the step's rollouts; only the first minibatch of the first pass is exactly on policy."""
    micro_batch_tokens: int = 4096
    """Most rows of one forward pass of a rank; a single sequence that is longer gets a forward pass of its own."""
    prefix_tree: bool | None = None
    """Forward a prefix that several samples share only once in a pack; the bits are those of separate samples. null =
    true on CPUs and false on GPUs. Before `true` is set on a GPU, tests/gpu/test_tree.py should pass there. Read only
    with kernels=invariant: native kernels always forward samples separately."""
    gradient_checkpointing: bool = True
    """Keep only the inputs of each decoder layer and compute the layer again in the backward pass, which saves memory
    and takes time."""
    nonfinite: NonFinitePolicy = NonFinitePolicy.skip
    save_every: int = 0
    """Save Hugging Face weights and the trainer's state (for run.resume) every n steps. Only the newest checkpoint
    keeps the state, which takes 12 bytes per parameter. 0 = save only the weights, at the end."""
    save_keep: int = 0
    """Number of the run's newest checkpoints to keep; 0 = all."""
    threads_per_rank: int = 1
    """Number of CPU threads of a rank. It is fixed because a library's sums may depend on it."""

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
                f"trainer.betas={list(self.betas)}: must be two numbers of at least 0 and less than 1, for example "
                "trainer.betas=[0.9,0.95]"
            )
        if self.adam_eps <= 0 or self.weight_decay < 0:
            raise ConfigError(
                f"trainer.adam_eps={self.adam_eps}, trainer.weight_decay={self.weight_decay}: adam_eps must be "
                "positive, and weight_decay must not be negative"
            )
        if not 0 <= self.min_lr_ratio <= 1:
            raise ConfigError(
                f"trainer.min_lr_ratio={self.min_lr_ratio}: must be at least 0 and at most 1, as a share of trainer.lr"
            )
        if self.max_grad_norm <= 0:
            raise ConfigError(f"trainer.max_grad_norm={self.max_grad_norm}: must be positive (use inf for no clipping)")
