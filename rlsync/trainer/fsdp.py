"""FSDP2 around a model of ours: fp32 master weights, forward in the compute dtype, one optimiser."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from rlsync.config.model import ComputeDtype
from rlsync.config.trainer import NonFinitePolicy, TrainerConfig
from rlsync.errors import NonFiniteError
from rlsync.models.critic import Critic
from rlsync.models.policy import Policy

MODEL_PREFIX = "model."
"""That a Policy or Critic puts before Hugging Face's names."""


def torch_dtype(dtype: ComputeDtype) -> torch.dtype:
    return torch.bfloat16 if dtype is ComputeDtype.bfloat16 else torch.float32


def mesh_device(mesh: DeviceMesh) -> torch.device:
    return torch.device(mesh.device_type, 0) if mesh.device_type == "cuda" else torch.device("cpu")


def shard(root: Policy | Critic, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Shard every layer, and the root with all else."""
    # Casting inputs would turn fp32 old log-probs and advantages into bf16.
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in root.model.base_model.layers:  # type: ignore[union-attr]
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(root, mesh=mesh, mp_policy=precision)


def make_optimizer(root: nn.Module, settings: TrainerConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        [param for param in root.parameters() if param.requires_grad],
        lr=settings.lr,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.adam_eps,
        weight_decay=settings.weight_decay,
    )


def take_update(
    root: nn.Module, optimizer: torch.optim.Optimizer, rate: float, settings: TrainerConfig, *, field: str
) -> tuple[float, bool]:
    """Clip, step and clear the gradients; returns their norm before the clipping, and whether the step was taken.

    Args:
        rate: learning rate of this update.
        field: of the configuration that holds the rate, for errors.
    Raises:
        NonFiniteError: a gradient is not finite, and trainer.nonfinite=stop.
    """
    clipped = torch.nn.utils.clip_grad_norm_(root.parameters(), settings.max_grad_norm)
    norm = float(clipped.full_tensor() if isinstance(clipped, DTensor) else clipped)
    finite = bool(torch.isfinite(torch.tensor(norm)))
    if finite:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    elif settings.nonfinite is NonFinitePolicy.stop:
        raise NonFiniteError(
            f"the gradient norm is {norm}: stopped, as trainer.nonfinite=stop asks. The weights are "
            f"those before this update; lower {field}, or use trainer.nonfinite=skip to leave such updates out."
        )
    optimizer.zero_grad(set_to_none=True)
    return norm, finite


def full_state(root: nn.Module) -> dict[str, torch.Tensor]:
    """All master weights by Hugging Face name, on rank 0's CPU; empty on the others. Collective."""
    state = get_model_state_dict(root, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {
        name.removeprefix(MODEL_PREFIX): tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)
    }
