"""The part of a run's configuration that rollout engines read. Imports no vLLM, so that the driver can make it."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.config.cluster import Device
from rlsync.config.kernels import KernelMode, KernelsConfig
from rlsync.config.model import ModelConfig
from rlsync.config.rollout import RolloutConfig


@dataclass(slots=True, kw_only=True, frozen=True)
class EngineSettings:
    """What a rollout engine is told of its run; the same for all engines."""

    model_path: str
    """Folder or hub id that the engine loads its first weights from."""
    model: ModelConfig
    kernels: KernelsConfig
    leaves: int
    """Number of leaves of the reduction tree; 1 in the gather form."""
    device: Device
    rollout: RolloutConfig

    @property
    def native(self) -> bool:
        """The engine is stock vLLM, which promises no parity."""
        return self.kernels.mode is KernelMode.native
