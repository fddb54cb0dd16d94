"""Makes the actors of trainer ranks and rollout engines, each where it belongs."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from rlsync.cluster.actors import RolloutActor, TrainerActor
from rlsync.cluster.calls import Member, gather
from rlsync.cluster.env import rollout_variables, trainer_variables
from rlsync.cluster.gpus import Place, colocated, engine_places, gpus_of_an_engine, share_of_a_rank
from rlsync.config.run import TrainConfig
from rlsync.errors import ConfigError


def make_trainers(config: TrainConfig, ranks: int) -> list[Member]:
    """The trainer actors.

    Raises:
        ConfigError: no node has room for the ranks whose GPUs an engine shares.
    """
    tp = config.rollout.tp
    groups = _reserve(config) if colocated(config, trainers=ranks > 0) and tp > 1 else []
    members = []
    for rank in range(ranks):
        engine, worker = divmod(rank, tp)
        strategy = PlacementGroupSchedulingStrategy(groups[engine], worker) if engine < len(groups) else "DEFAULT"
        actor = make_actor(
            TrainerActor,
            num_cpus=config.cluster.trainer_cpus,
            num_gpus=share_of_a_rank(config),
            variables=trainer_variables(config),
            strategy=strategy,
        )
        members.append(Member(f"trainer rank {rank}", actor))
    return members


def shared_places(config: TrainConfig, trainers: list[Member]) -> list[Place]:
    """The places of engines that live on the GPUs of trainer ranks; none if they do not.

    Raises:
        ConfigError: as engine_places.
        WorkerDiedError: a rank did not start.
    """
    if not colocated(config, trainers=bool(trainers)):
        return []
    asked = [(member, member.handle.place.remote()) for member in trainers]
    ranks = gather(asked, stage="start-up", timeout_s=config.cluster.startup_timeout_s)
    return engine_places(ranks, config.rollout.engines, config.rollout.tp)


def make_engines(config: TrainConfig, places: list[Place], *, trainers: bool) -> list[Member]:
    """The engine actors.

    Args:
        places: of engines that share GPUs with trainer ranks.
        trainers: whether there are any.
    """
    tp = config.rollout.tp
    members = []
    for index in range(config.rollout.engines):
        actor = make_actor(
            RolloutActor,
            num_cpus=config.cluster.rollout_cpus * tp,
            num_gpus=gpus_of_an_engine(config, trainers),
            variables=rollout_variables(config),
            strategy=NodeAffinitySchedulingStrategy(places[index].node, soft=False) if places else "DEFAULT",
        )
        members.append(Member(f"rollout engine {index}", actor))
    return members


def _reserve(config: TrainConfig) -> list[PlacementGroup]:
    """GPUs of one node for the ranks that each engine shares them with. Ray frees them at the end of the job."""
    bundle = {"CPU": config.cluster.trainer_cpus, "GPU": share_of_a_rank(config)}
    bundles = [{name: amount for name, amount in bundle.items() if amount}] * config.rollout.tp
    groups = [placement_group(bundles, strategy="STRICT_PACK") for _ in range(config.rollout.engines)]
    for engine, group in enumerate(groups):
        if not group.wait(config.cluster.startup_timeout_s):
            raise ConfigError(
                f"cluster.placement=colocated: no node has room for the rollout.tp={config.rollout.tp} ranks whose "
                f"GPUs engine {engine} shares. Lower rollout.tp or rollout.engines, or wait until the cluster is free."
            )
    return groups


def make_actor(
    kind: type,
    *arguments: Any,
    num_cpus: float,
    num_gpus: float,
    variables: dict[str, str],
    strategy: Any = "DEFAULT",
) -> Any:
    """Handle of a new actor, made with `arguments`; it is never restarted.

    Args:
        variables: of its environment.
        strategy: where Ray is to put it.
    """
    options = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "max_restarts": 0,
        "runtime_env": {"env_vars": variables},
        "scheduling_strategy": strategy,
    }
    return ray.remote(kind).options(**options).remote(*arguments)
