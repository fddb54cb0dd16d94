"""The plan of a run: everything that is decided once before its processes start."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.config.cluster import Device, Placement
from rlsync.config.run import TrainConfig
from rlsync.models.paths import ModelPaths
from rlsync.rollout.settings import EngineSettings
from rlsync.trainer.settings import TrainerSettings


@dataclass(slots=True, kw_only=True, frozen=True)
class RunPlan:
    """The processes of a run, their settings, and the models that they load."""

    ranks: int
    """Number of FSDP ranks; 0 for an evaluation, which has no trainer."""
    colocated: bool
    """Whether the engines share the GPUs of trainer ranks."""
    local: bool
    """Whether all processes run on this machine, in a Ray session that only this run uses."""
    trainer: TrainerSettings
    engine: EngineSettings

    @property
    def models(self) -> ModelPaths:
        """The resolved models."""
        return self.trainer.models

    @property
    def engines(self) -> int:
        """Number of rollout engines."""
        return self.engine.rollout.engines

    @property
    def tp(self) -> int:
        """Number of TP workers of each engine."""
        return self.engine.rollout.tp

    @property
    def device(self) -> Device:
        """Kind of device that all actors compute on."""
        return self.engine.device


def plan_run(config: TrainConfig, models: ModelPaths, *, trains: bool) -> RunPlan:
    """Plan a run.

    Args:
        config: The run's configuration.
        models: The resolved models.
        trains: Whether the run has trainer ranks; without them the engines keep the weights of the policy's folder.
    """
    cluster, rollout = config.cluster, config.rollout
    colocated = trains and cluster.device is Device.cuda and cluster.placement is Placement.colocated
    return RunPlan(
        ranks=config.trainer.ranks if trains else 0,
        colocated=colocated,
        local=cluster.address is None,
        trainer=TrainerSettings(
            models=models,
            model=config.model,
            kernels=config.kernels,
            leaves=config.leaves,
            device=cluster.device,
            temperature=rollout.temperature,
            max_tokens=rollout.max_tokens,
            trainer=config.trainer,
            critic=config.critic,
            algorithm=config.algorithm,
            parity=config.parity,
            seed=config.seed,
        ),
        engine=EngineSettings(
            model_path=models.policy,
            model=config.model,
            kernels=config.kernels,
            leaves=config.leaves,
            device=cluster.device,
            rollout=rollout,
        ),
    )
