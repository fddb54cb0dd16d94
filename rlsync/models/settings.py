"""The part of a run's configuration that decides how a model computes, in the trainer and in the engines alike."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.config.cluster import Device
from rlsync.config.kernels import KernelMode, KernelsConfig
from rlsync.config.model import ModelConfig


@dataclass(slots=True, kw_only=True, frozen=True)
class ModelSettings:
    """The settings on which trainer ranks and rollout engines must agree."""

    model: ModelConfig
    kernels: KernelsConfig
    leaves: int
    """Number of leaves of the reduction tree; 1 in the gather form."""
    device: Device

    @property
    def native(self) -> bool:
        """Whether the model runs on stock kernels, without parity."""
        return self.kernels.mode is KernelMode.native
