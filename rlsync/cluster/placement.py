"""A one-line description of a run's processes."""

from __future__ import annotations

from rlsync.config.kernels import KernelMode
from rlsync.config.run import TrainConfig


def placement(config: TrainConfig, *, ranks: int) -> str:
    """Describe the processes of a run for its user.

    Args:
        config: The run's configuration.
        ranks: Number of FSDP ranks; 0 for an evaluation.
    """
    where = config.cluster.address or "this machine"
    kernels = "native kernels (no parity)"
    if config.kernels.mode is KernelMode.invariant:
        kernels = f"{config.kernels.row_parallel} kernels, {config.leaves} leaves"
    trainer = f"{ranks} FSDP ranks, " if ranks else ""
    return (
        f"{config.run.name}: {trainer}{config.rollout.engines} vLLM engine(s) with TP={config.rollout.tp}, "
        f"{config.model.dtype}, {kernels}, Ray on {where}, {config.cluster.device}"
    )
