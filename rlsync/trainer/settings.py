"""The part of a run's configuration that trainer ranks read."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlsync.config.algorithm import AlgorithmConfig
from rlsync.config.critic import CriticConfig
from rlsync.config.parity import ParityConfig
from rlsync.config.trainer import TrainerConfig
from rlsync.models.paths import ModelPaths
from rlsync.models.settings import ModelSettings


@dataclass(slots=True, kw_only=True, frozen=True)
class TrainerSettings(ModelSettings):
    """The settings of a trainer rank, which are the same on all ranks."""

    models: ModelPaths
    """Paths of the policy, the critic and the reference."""
    temperature: float
    """Temperature of the policy: the logits are divided by it."""
    max_tokens: int
    """Largest number of tokens of a response, by which `aggregation=fixed_length` divides."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    parity: ParityConfig = field(default_factory=ParityConfig)
    seed: int = 0
