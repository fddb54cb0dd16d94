"""Makes the actors of trainer ranks and rollout engines on the right nodes and GPUs."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from rlsync.cluster.actors import RolloutActor, TrainerActor
from rlsync.cluster.calls import Member, gather
from rlsync.cluster.env import rollout_variables, trainer_variables
from rlsync.cluster.gpus import Place, engine_places, gpus_of_an_engine, share_of_a_rank
from rlsync.cluster.run_plan import RunPlan
from rlsync.config.cluster import ClusterConfig
from rlsync.errors import ConfigError


def make_trainers(cluster: ClusterConfig, plan: RunPlan) -> list[Member]:
    """Make the trainer actors.

    Raises:
        ConfigError: No node has room for all ranks that share their GPUs with one engine.
    """
    groups = _reserve(cluster, plan) if plan.colocated and plan.tp > 1 else []
    variables = trainer_variables(plan.trainer, local=plan.local)
    members = []
    for rank in range(plan.ranks):
        engine, worker = divmod(rank, plan.tp)
        strategy = PlacementGroupSchedulingStrategy(groups[engine], worker) if engine < len(groups) else "DEFAULT"
        actor = make_actor(
            TrainerActor,
            num_cpus=cluster.trainer_cpus,
            num_gpus=share_of_a_rank(plan.device),
            variables=variables,
            strategy=strategy,
        )
        members.append(Member(f"trainer rank {rank}", actor))
    return members


def shared_places(cluster: ClusterConfig, plan: RunPlan, trainers: list[Member]) -> list[Place]:
    """Return the places of engines that share the GPUs of trainer ranks; an empty list if engines are separate.

    Raises:
        ConfigError: As engine_places.
        WorkerDiedError: A rank did not start.
    """
    if not plan.colocated:
        return []
    asked = [(member, member.handle.place.remote()) for member in trainers]
    ranks = gather(asked, stage="start-up", timeout_s=cluster.startup_timeout_s)
    return engine_places(ranks, plan.engines, plan.tp)


def make_engines(cluster: ClusterConfig, plan: RunPlan, places: list[Place]) -> list[Member]:
    """Make the engine actors.

    Args:
        cluster: CPUs that each worker reserves.
        plan: The processes of the run.
        places: Place of each colocated engine; empty if engines are separate.
    """
    variables = rollout_variables(plan.engine, local=plan.local)
    members = []
    for index in range(plan.engines):
        actor = make_actor(
            RolloutActor,
            num_cpus=cluster.rollout_cpus * plan.tp,
            num_gpus=gpus_of_an_engine(plan),
            variables=variables,
            strategy=NodeAffinitySchedulingStrategy(places[index].node, soft=False) if places else "DEFAULT",
        )
        members.append(Member(f"rollout engine {index}", actor))
    return members


def _reserve(cluster: ClusterConfig, plan: RunPlan) -> list[PlacementGroup]:
    """Reserve, for each engine, GPUs of one node for the ranks that share them. Ray frees them when the job ends."""
    bundle = {"CPU": cluster.trainer_cpus, "GPU": share_of_a_rank(plan.device)}
    bundles = [{name: amount for name, amount in bundle.items() if amount}] * plan.tp
    groups = [placement_group(bundles, strategy="STRICT_PACK") for _ in range(plan.engines)]
    for engine, group in enumerate(groups):
        if not group.wait(cluster.startup_timeout_s):
            raise ConfigError(
                f"cluster.placement=colocated: no node has room for the {plan.tp} trainer ranks (rollout.tp) that "
                f"share GPUs with engine {engine}. Lower rollout.tp or rollout.engines, or wait until the cluster is "
                "free."
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
    """Make an actor that Ray never restarts, and return its handle.

    Args:
        kind: Class of the actor.
        arguments: Arguments of its constructor.
        num_cpus: CPUs that Ray reserves.
        num_gpus: GPUs that Ray reserves.
        variables: Environment variables of its process.
        strategy: Ray's scheduling strategy.
    """
    options = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "max_restarts": 0,
        "runtime_env": {"env_vars": variables},
        "scheduling_strategy": strategy,
    }
    return ray.remote(kind).options(**options).remote(*arguments)
