"""Who runs where, in a sentence."""

from __future__ import annotations

from rlsync.config.kernels import KernelMode
from rlsync.config.run import TrainConfig


def placement(config: TrainConfig, *, trainers: bool = True) -> str:
    where = config.cluster.address or "this machine"
    kernels = "native kernels (no parity)"
    if config.kernels.mode is KernelMode.invariant:
        kernels = f"{config.kernels.row_parallel} kernels, {config.leaves} leaves"
    ranks = f"{config.trainer.ranks} FSDP ranks, " if trainers else ""
    return (
        f"{config.run.name}: {ranks}{config.rollout.engines} vLLM engine(s) with TP={config.rollout.tp}, "
        f"{config.model.dtype}, {kernels}, Ray on {where}, {config.cluster.device}"
    )
