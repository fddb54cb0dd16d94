"""Which GPUs a run's actors get, and which trainer rank feeds which rollout worker."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from rlsync.cluster.env import VISIBLE_GPUS
from rlsync.cluster.run_plan import RunPlan
from rlsync.config.cluster import Device
from rlsync.errors import ConfigError

_TRAINER_SHARE = 0.6
"""Share of a GPU that Ray reserves for a trainer rank: two ranks never share a GPU, but a rank and a small reward model
can."""
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node and the GPUs that a process sees there, as CUDA_VISIBLE_DEVICES names them."""

    node: str
    gpus: tuple[str, ...]


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that are visible to this process."""
    return tuple(filter(None, os.environ.get(VISIBLE_GPUS, "").split(",")))


def share_of_a_rank(device: Device) -> float:
    """Return the share of a GPU that Ray reserves for a trainer rank."""
    return _TRAINER_SHARE if device is Device.cuda else 0.0


def gpus_of_an_engine(plan: RunPlan) -> int:
    """Return the number of GPUs that Ray reserves for an engine: 0 if it uses the GPUs of trainer ranks."""
    return plan.tp if plan.device is Device.cuda and not plan.colocated else 0


def gpus_needed(plan: RunPlan, reward_shares: Sequence[float]) -> int:
    """Return the number of whole GPUs that a run needs.

    Each trainer rank needs one GPU, each worker of a separate engine one, and reward models need further GPUs if they
    do not fit beside a rank.

    Args:
        plan: The processes of the run.
        reward_shares: Share of a GPU that each reward model reserves.
    """
    room = [1 - _TRAINER_SHARE] * plan.ranks
    more = 0
    for share in sorted(reward_shares, reverse=True):
        beside = next((i for i, free in enumerate(room) if free >= share - _TOLERANCE), None)
        if beside is None:
            more += math.ceil(share)
            room.append(math.ceil(share) - share)
        else:
            room[beside] -= share
    return plan.ranks + plan.engines * gpus_of_an_engine(plan) + more


def engine_places(ranks: Sequence[Place], engines: int, tp: int) -> list[Place]:
    """Return the places of colocated engines: engine e uses the GPUs of ranks e tp .. (e + 1) tp - 1.

    Args:
        ranks: Place of each trainer rank.
        engines: Number of engines.
        tp: Number of TP workers of each engine.

    Raises:
        ConfigError: A rank does not see exactly one GPU of its own, or the ranks of an engine are on several nodes.
    """
    seen = [(place.node, place.gpus) for place in ranks]
    if any(len(gpus) != 1 for _, gpus in seen) or len(set(seen)) < len(seen):
        raise ConfigError(
            f"cluster.placement=colocated: each FSDP rank must see one GPU of its own, but they see {seen}. Let Ray "
            "set CUDA_VISIBLE_DEVICES (unset RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES)."
        )
    places = []
    for engine in range(engines):
        shared = ranks[engine * tp : (engine + 1) * tp]
        if len({place.node for place in shared}) > 1:
            raise ConfigError(
                f"cluster.placement=colocated: the rollout.tp={tp} workers of engine {engine} would be on several "
                "nodes. Use a rollout.tp that divides the GPUs of a node."
            )
        places.append(Place(node=shared[0].node, gpus=tuple(gpu for place in shared for gpu in place.gpus)))
    return places


def feeders(plan: RunPlan) -> list[int]:
    """Return, for each rollout worker, engine by engine, the trainer rank that sends it the weights."""
    return [worker if plan.colocated else 0 for worker in range(plan.engines * plan.tp)]
