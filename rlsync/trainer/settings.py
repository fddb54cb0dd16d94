"""The part of a run's configuration that trainer ranks read."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlsync.config.algorithm import AlgorithmConfig
from rlsync.config.cluster import Device
from rlsync.config.critic import CriticConfig
from rlsync.config.kernels import KernelMode, KernelsConfig
from rlsync.config.model import ModelConfig
from rlsync.config.parity import ParityConfig
from rlsync.config.trainer import TrainerConfig
from rlsync.models.paths import ModelPaths


@dataclass(slots=True, kw_only=True, frozen=True)
class TrainerSettings:
    """The settings of a trainer rank, which are the same on all ranks."""

    models: ModelPaths
    """Paths of the policy, the critic and the reference."""
    model: ModelConfig
    kernels: KernelsConfig
    leaves: int
    """Number of leaves of the reduction tree; 1 in the gather form."""
    device: Device
    temperature: float
    """Temperature of the policy: the logits are divided by it."""
    max_tokens: int
    """Largest number of tokens of a response, by which `aggregation=fixed_length` divides."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    parity: ParityConfig = field(default_factory=ParityConfig)
    seed: int = 0

    @property
    def native(self) -> bool:
        """Whether the model runs on stock kernels, without parity."""
        return self.kernels.mode is KernelMode.native
