"""Configuration of Ray: where it runs, and what each actor reserves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlsync.errors import ConfigError


class Device(StrEnum):
    """Device of the trainer and of the rollout engines."""

    cpu = "cpu"
    """CPUs, with gloo between processes."""
    cuda = "cuda"
    """NVIDIA GPUs, with NCCL or shared memory between processes."""


class Placement(StrEnum):
    """Which GPUs rollout engines use, with device=cuda."""

    colocated = "colocated"
    """The trainer's GPUs: TP worker w, counted over all engines, shares the GPU of FSDP rank w."""
    separate = "separate"
    """GPUs of their own, one for each TP worker."""


@dataclass(kw_only=True, slots=True)
class ClusterConfig:
    """Configuration of Ray and of the processes that it starts."""

    address: str | None = None
    """null starts Ray on this machine and stops it at the end; `auto` or host:port attaches to a cluster."""
    device: Device = Device.cpu
    trainer_cpus: float = 0.5
    """CPUs that Ray reserves for a trainer rank."""
    rollout_cpus: float = 0.5
    """CPUs that Ray reserves for each TP worker of a rollout engine."""
    placement: Placement = Placement.colocated
    """GPUs of the rollout engines, with device=cuda. Every FSDP rank has a GPU of its own in any case."""
    startup_timeout_s: float = 600.0
    """Longest wait for actors and engines to be ready."""
    stage_timeout_s: float = 3600.0
    """Longest wait for one stage of a step; a hang becomes an error that names the stage."""

    def __post_init__(self) -> None:
        if self.trainer_cpus < 0 or self.rollout_cpus < 0:
            raise ConfigError(
                f"cluster.trainer_cpus={self.trainer_cpus}, cluster.rollout_cpus={self.rollout_cpus}: neither may be "
                "negative"
            )
        if self.startup_timeout_s <= 0 or self.stage_timeout_s <= 0:
            raise ConfigError(
                f"cluster.startup_timeout_s={self.startup_timeout_s}, "
                f"cluster.stage_timeout_s={self.stage_timeout_s}: both must be positive"
            )
