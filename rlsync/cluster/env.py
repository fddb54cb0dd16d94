"""The one table of environment variables: role -> what its process needs, with the reason."""

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


def driver_variables(*, local: bool) -> dict[str, str]:
    variables = {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leave CUDA_VISIBLE_DEVICES of actors without GPUs alone
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if local and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray writes one into the home, which may not be there
    return variables


def session_variables(folder: Path) -> dict[str, str]:
    """Variables for the actors of a session on this machine where the user's own folders cannot be used.

    Args:
        folder: the session's, which goes at its end.
    """
    variables = {}
    if needs_short_tmpdir():
        variables["TMPDIR"] = str(folder)  # sockets of Python's multiprocessing are made there
        variables["VLLM_RPC_BASE_PATH"] = str(folder)  # vLLM's, where the process has looked for TMPDIR before
    if not os.access(os.path.expanduser("~"), os.W_OK):
        caches = {"NUMBA_CACHE_DIR": "numba", "VLLM_CACHE_ROOT": "vllm", "TRITON_CACHE_DIR": "triton"}
        variables |= {name: str(folder / cache) for name, cache in caches.items() if name not in os.environ}
    return variables


def trainer_variables(settings: TrainerSettings, *, local: bool) -> dict[str, str]:
    variables = {
        "OMP_NUM_THREADS": str(settings.trainer.threads_per_rank),  # sums of a library may depend on it
        "TOKENIZERS_PARALLELISM": "false",
    }
    if local:
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    if settings.device is Device.cuda:
        variables["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS repeats its sums only with a fixed workspace
    return variables


def rollout_variables(settings: EngineSettings, *, local: bool) -> dict[str, str]:
    variables = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives in the actor, TP workers are its children
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
        variables["TORCHDYNAMO_DISABLE"] = "1"  # nothing may fuse ops anew
        variables["VLLM_USE_V2_MODEL_RUNNER"] = "1"  # the sampler is written for it
        variables["VLLM_USE_BREAKABLE_CUDAGRAPH"] = "1"  # graphs between attention calls, without torch.compile
    if exact:
        variables[ROLLOUT_PLUGIN_VARIABLE] = "1"
    return variables


def omp_threads_bind(tp: int, cpus: list[int]) -> str:
    """vLLM's list of CPUs per TP worker: one each, round and round."""
    return "|".join(str(cpus[rank % len(cpus)]) for rank in range(tp))


def apply_to_driver(*, local: bool) -> None:
    """Set the driver's variables; what the user has set stays."""
    for name, value in driver_variables(local=local).items():
        os.environ.setdefault(name, value)


def apply_to_engine_host(settings: EngineSettings, folder: Path | None = None) -> None:
    """Set the variables of a process that runs engines without Ray.

    Args:
        folder: of the session, as for `session_variables`.
    """
    os.environ.update(rollout_variables(settings, local=True) | (session_variables(folder) if folder else {}))


def take_gpus(gpus: Sequence[str]) -> None:
    """Let this process see only these GPUs; call it before CUDA is initialized. If empty, it keeps what Ray gave it."""
    if gpus:
        os.environ[VISIBLE_GPUS] = ",".join(gpus)


def fork_workers() -> None:
    """Make vLLM fork its workers, which spares them the imports; for a process that has started no thread.

    vLLM's CPU platform asks for spawned ones while it makes its configuration, so this comes after that.
    """
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
