"""Start Ray here, or attach to a cluster; leave nothing behind."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import ray

from rlsync.cluster.env import apply_to_driver, session_variables
from rlsync.cluster.gpus import gpus_needed
from rlsync.cluster.run_plan import RunPlan
from rlsync.cluster.session_folder import session_folder
from rlsync.config.cluster import ClusterConfig, Device
from rlsync.config.run import TrainConfig
from rlsync.errors import ConfigError

_OBJECT_STORE_BYTES = 256 << 20


@contextmanager
def ray_session(config: TrainConfig, plan: RunPlan) -> Iterator[None]:
    """Ray for the length of a run.

    Raises:
        ConfigError: the cluster cannot be reached, or there is no room for a session's files here.
    """
    apply_to_driver(local=plan.local)
    with ExitStack() as stack:
        if config.cluster.address is None:
            _start_here(required_cpus(config.cluster, plan), stack.enter_context(session_folder()))
        else:
            _attach(config.cluster.address)
        stack.callback(ray.shutdown)
        _check_gpus(config, plan)
        yield


def _start_here(cpus: float, folder: Path) -> None:
    """Start Ray on this machine, with its files in `folder`."""
    variables = session_variables(folder)
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, round(cpus + 0.5)),
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
        runtime_env={"env_vars": variables} if variables else None,
        _temp_dir=str(folder),
    )


def _attach(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ConfigError(
            f"cluster.address={address}: no Ray cluster answers there ({error}). Start one with "
            "`ray start --head`, "
            "or leave cluster.address unset to run on this machine."
        ) from error


def _check_gpus(config: TrainConfig, plan: RunPlan) -> None:
    """Raises ConfigError where Ray would wait for ever for GPUs that the cluster does not have."""
    if plan.device is not Device.cuda:
        return
    rollout = config.rollout
    wanted, there = gpus_needed(plan, config.reward.gpu_shares), ray.cluster_resources().get("GPU", 0.0)
    if there < wanted:
        raise ConfigError(
            f"cluster.device=cuda: the run needs {wanted} GPUs (trainer.ranks={config.trainer.ranks}, "
            f"rollout.engines={rollout.engines}, rollout.tp={rollout.tp}, "
            f"cluster.placement={config.cluster.placement}, reward.model_gpus), and Ray finds {there:g}. Lower one of "
            "these, or use cluster=local_cpu."
        )
    largest = max(node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"])
    if rollout.tp > largest:
        raise ConfigError(
            f"rollout.tp={rollout.tp}: an engine's workers must be on one node, and the largest has {largest:g} GPUs"
        )


def required_cpus(cluster: ClusterConfig, plan: RunPlan) -> float:
    """The number of CPUs that Ray is told the run's actors take."""
    return plan.ranks * cluster.trainer_cpus + plan.engines * plan.tp * cluster.rollout_cpus


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does, through the same clean-up."""

    def handler(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
