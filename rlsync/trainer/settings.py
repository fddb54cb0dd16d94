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
    """What a trainer rank is told of its run; the same on all ranks."""

    models: ModelPaths
    model: ModelConfig
    kernels: KernelsConfig
    leaves: int
    """Number of leaves of the reduction tree; 1 in the gather form."""
    device: Device
    temperature: float
    """The temperature of rollouts, which the log-probs include."""
    max_tokens: int
    """The longest response, for the aggregation that divides by it."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    parity: ParityConfig = field(default_factory=ParityConfig)
    seed: int = 0

    @property
    def native(self) -> bool:
        """The model runs on stock kernels, which promise no parity."""
        return self.kernels.mode is KernelMode.native
