"""Makes the actors of trainer ranks and rollout engines, each where it belongs."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlsync.cluster.actors import RolloutActor, TrainerActor
from rlsync.cluster.calls import Member, gather
from rlsync.cluster.env import rollout_variables, trainer_variables
from rlsync.cluster.gpus import Place, colocated, engine_places, gpus_of_a_rank, gpus_of_an_engine
from rlsync.config.run import TrainConfig


def make_trainers(config: TrainConfig, ranks: int) -> tuple[list[Member], list[Place]]:
    """The trainer actors in the order of nodes and GPUs, and the places of engines that share their GPUs, if any do."""
    actors = [
        _make(
            TrainerActor,
            num_cpus=config.cluster.trainer_cpus,
            num_gpus=gpus_of_a_rank(config),
            variables=trainer_variables(config),
        )
        for _ in range(ranks)
    ]
    if not colocated(config, trainers=ranks > 0):
        return [Member(f"trainer rank {rank}", actor) for rank, actor in enumerate(actors)], []
    asked = [(Member("a trainer rank", actor), actor.place.remote()) for actor in actors]
    found = gather(asked, stage="start-up", timeout_s=config.cluster.startup_timeout_s)
    order = sorted(range(ranks), key=lambda i: found[i].order)
    places = engine_places([found[i] for i in order], config.rollout.engines, config.rollout.tp)
    return [Member(f"trainer rank {rank}", actors[i]) for rank, i in enumerate(order)], places


def make_engines(config: TrainConfig, places: list[Place], *, trainers: bool) -> list[Member]:
    """The engine actors.

    Args:
        places: of engines that share GPUs with trainer ranks.
        trainers: whether there are any.
    """
    tp = config.rollout.tp
    made = []
    for index in range(config.rollout.engines):
        actor = _make(
            RolloutActor,
            num_cpus=config.cluster.rollout_cpus * tp,
            num_gpus=gpus_of_an_engine(config, trainers),
            variables=rollout_variables(config),
            node=places[index].node if places else None,
        )
        made.append(Member(f"rollout engine {index}", actor))
    return made


def _make(kind: type, *, num_cpus: float, num_gpus: float, variables: dict[str, str], node: str | None = None) -> Any:
    options = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "max_restarts": 0,
        "runtime_env": {"env_vars": variables},
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False) if node else "DEFAULT",
    }
    return ray.remote(kind).options(**options).remote()
