"""Environment variables of each kind of process, with reasons. No other module sets environment variables."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from rlsync.cluster.session_folder import needs_short_tmpdir
from rlsync.config.cluster import Device
from rlsync.rollout.settings import EngineSettings
from rlsync.trainer.settings import TrainerSettings

ROLLOUT_PLUGIN_VARIABLE = "RLSYNC_ROLLOUT"
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def wait_passively() -> None:
    """Let this process's OpenMP threads sleep while they wait for work, unless the user has chosen otherwise.

    Threads that spin take the cores from other programs, and each other's when the machine is busy: the warm start of
    the tiny model then takes many times as long. Call this before torch is imported, which reads the variable once.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def driver_variables(*, local: bool) -> dict[str, str]:
    """Return the driver's variables; `local`: Ray is started on this machine."""
    variables = {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # keep CUDA_VISIBLE_DEVICES of actors without GPUs
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if local and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        # Otherwise Ray writes a token to the home folder, which may not exist.
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return variables


def session_variables(folder: Path) -> dict[str, str]:
    """Return variables of a local session's actors that replace folders of the user that cannot be used.

    Args:
        folder: The session's folder, which is removed at its end.
    """
    variables = {}
    if needs_short_tmpdir():
        variables["TMPDIR"] = str(folder)  # for sockets of Python's multiprocessing
        variables["VLLM_RPC_BASE_PATH"] = str(folder)  # for vLLM's sockets if the process has read TMPDIR before
    if not os.access(os.path.expanduser("~"), os.W_OK):
        caches = {"NUMBA_CACHE_DIR": "numba", "VLLM_CACHE_ROOT": "vllm", "TRITON_CACHE_DIR": "triton"}
        variables |= {name: str(folder / cache) for name, cache in caches.items() if name not in os.environ}
    return variables


def trainer_variables(settings: TrainerSettings, *, local: bool) -> dict[str, str]:
    """Return the environment variables of a trainer rank. `local` says that all processes are on this machine."""
    variables = {
        "OMP_NUM_THREADS": str(settings.trainer.threads_per_rank),  # a library's sums may depend on it
        "TOKENIZERS_PARALLELISM": "false",
    }
    if local:
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    if settings.device is Device.cuda:
        variables["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS is deterministic only with a fixed workspace
    return variables


def rollout_variables(settings: EngineSettings, *, local: bool) -> dict[str, str]:
    """Return the environment variables of an engine's process. `local` says that all processes are on this machine."""
    variables = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine runs in the actor's process, and TP workers are children
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if local:
        variables["GLOO_SOCKET_IFNAME"] = "lo"
        variables["VLLM_HOST_IP"] = "127.0.0.1"
    exact = not settings.native
    if settings.device is Device.cpu:
        variables["VLLM_CPU_OMP_THREADS_BIND"] = omp_threads_bind(settings.rollout.tp, sorted(os.sched_getaffinity(0)))
        variables["TORCHDYNAMO_DISABLE"] = "1"  # otherwise the log-prob op is compiled at the first request
    elif exact:
        variables["TORCHDYNAMO_DISABLE"] = "1"  # compilation could fuse ops
        variables["VLLM_USE_V2_MODEL_RUNNER"] = "1"  # rlsync's sampler is written for this runner
        variables["VLLM_USE_BREAKABLE_CUDAGRAPH"] = "1"  # piecewise graphs without torch.compile
    if exact:
        variables[ROLLOUT_PLUGIN_VARIABLE] = "1"
    return variables


def omp_threads_bind(tp: int, cpus: list[int]) -> str:
    """Return vLLM's list of CPUs for the TP workers: one CPU for each, cyclically reused if there are too few."""
    return "|".join(str(cpus[rank % len(cpus)]) for rank in range(tp))


def apply_to_driver(*, local: bool) -> None:
    """Set the driver's variables, except those that the user has set."""
    for name, value in driver_variables(local=local).items():
        os.environ.setdefault(name, value)


def apply_to_engine_host(settings: EngineSettings, folder: Path | None = None) -> None:
    """Set the variables of a process that runs engines without Ray.

    Args:
        settings: Settings of the engines.
        folder: The session's folder, as for `session_variables`; None = none of its variables are needed.
    """
    os.environ.update(rollout_variables(settings, local=True) | (session_variables(folder) if folder else {}))


def take_gpus(gpus: Sequence[str]) -> None:
    """Make only these GPUs visible to this process. Call it before CUDA is initialized.

    Args:
        gpus: The GPUs; if empty, the process keeps those that Ray assigned.
    """
    if gpus:
        os.environ[VISIBLE_GPUS] = ",".join(gpus)


def fork_workers() -> None:
    """Make vLLM fork its workers, which saves their imports. Only for a process that has started no thread.

    Call it after vLLM has made its configuration, because its CPU platform selects spawned workers then.
    """
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
