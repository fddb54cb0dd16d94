"""Start Ray on this machine or attach to a cluster, and clean up at the end."""

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
from rlsync.errors import ConfigError, RayStartError
from rlsync.telemetry.names import LOGS

_OBJECT_STORE_BYTES = 256 << 20
_ATTEMPTS = 3
logger = logging.getLogger(__name__)


@contextmanager
def ray_session(config: TrainConfig, plan: RunPlan) -> Iterator[None]:
    """Provide Ray for the duration of a run.

    Raises:
        ConfigError: The cluster cannot be reached or has too few GPUs, or no folder can hold the session's files.
    """
    apply_to_driver(local=plan.local)
    with ExitStack() as stack:
        if config.cluster.address is None:
            folder = stack.enter_context(session_folder(config.run.folder / LOGS))
            _start_here(required_cpus(config.cluster, plan), folder)
        else:
            _attach(config.cluster.address)
        stack.callback(ray.shutdown)
        _check_gpus(config, plan)
        yield


def _start_here(cpus: float, folder: Path) -> None:
    """Start Ray on this machine, with its files in `folder`. Ray itself gives up after 30 s on a busy machine.

    Raises:
        RayStartError: Ray has not started in several attempts.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _init(cpus, folder)
            return
        except Exception as error:  # noqa: BLE001 (Ray raises a bare Exception when its own time is over)
            ray.shutdown()
            logger.warning("Ray did not start (attempt %d of %d): %s", attempt, _ATTEMPTS, error)
            reason = error
    raise RayStartError(
        f"Ray did not start on this machine in {_ATTEMPTS} attempts ({type(reason).__name__}: {reason}). End other "
        "programs that use all cores, or attach to a running Ray with cluster.address=auto"
    ) from reason


def _init(cpus: float, folder: Path) -> None:
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
            "`ray start --head`, or leave cluster.address unset to run on this machine."
        ) from error


def _check_gpus(config: TrainConfig, plan: RunPlan) -> None:
    """Raise ConfigError if the cluster has too few GPUs, for which Ray would wait forever."""
    if plan.device is not Device.cuda:
        return
    rollout = config.rollout
    wanted, there = gpus_needed(plan, config.reward.gpu_shares), ray.cluster_resources().get("GPU", 0.0)
    if there < wanted:
        raise ConfigError(
            f"cluster.device=cuda: the run needs {wanted} GPUs (trainer.ranks={config.trainer.ranks}, "
            f"rollout.engines={rollout.engines}, rollout.tp={rollout.tp}, "
            f"cluster.placement={config.cluster.placement}, reward.model_gpus), but Ray finds {there:g}. Lower one of "
            "these, or use cluster=local_cpu."
        )
    largest = max(node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"])
    if rollout.tp > largest:
        raise ConfigError(
            f"rollout.tp={rollout.tp}: an engine's workers must be on one node, but the largest node has {largest:g} "
            "GPUs. Lower rollout.tp"
        )


def required_cpus(cluster: ClusterConfig, plan: RunPlan) -> float:
    """Return the number of CPUs that the run's actors reserve."""
    return plan.ranks * cluster.trainer_cpus + plan.engines * plan.tp * cluster.rollout_cpus


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, with the same clean-up."""

    def handler(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  (the signal module fixes the arguments)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
