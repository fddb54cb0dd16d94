"""The part of a run's configuration that rollout engines read; importing it does not import vLLM."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.config.cluster import Device
from rlsync.config.kernels import KernelMode, KernelsConfig
from rlsync.config.model import ModelConfig
from rlsync.config.rollout import RolloutConfig


@dataclass(slots=True, kw_only=True, frozen=True)
class EngineSettings:
    """The settings of a rollout engine, which are the same for all engines."""

    model_path: str
    """Folder or hub id from which the engine loads its first weights."""
    model: ModelConfig
    kernels: KernelsConfig
    leaves: int
    """Number of leaves of the reduction tree; 1 in the gather form."""
    device: Device
    rollout: RolloutConfig

    @property
    def native(self) -> bool:
        """Whether the engine is stock vLLM, without parity."""
        return self.kernels.mode is KernelMode.native
