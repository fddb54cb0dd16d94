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

    models: ModelPaths
    ranks: int
    """Number of FSDP ranks; 0 for an evaluation, which has no trainer."""
    engines: int
    """Number of rollout engines."""
    tp: int
    """Number of TP workers of each engine."""
    device: Device
    colocated: bool
    """Whether the engines share the GPUs of trainer ranks."""
    local: bool
    """Whether all processes run on this machine, in a Ray session that only this run uses."""
    trainer: TrainerSettings
    engine: EngineSettings


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
        models=models,
        ranks=config.trainer.ranks if trains else 0,
        engines=rollout.engines,
        tp=rollout.tp,
        device=cluster.device,
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
