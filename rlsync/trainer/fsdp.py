"""FSDP2 for the policy and the critic: fp32 master weights, a forward pass in the compute dtype, and AdamW."""

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
"""Prefix of the parameter names of a Policy or Critic in front of their Hugging Face names."""


def torch_dtype(dtype: ComputeDtype) -> torch.dtype:
    """PyTorch's dtype for a `model.dtype`."""
    return torch.bfloat16 if dtype is ComputeDtype.bfloat16 else torch.float32


def mesh_device(mesh: DeviceMesh) -> torch.device:
    """The device of this rank; every trainer process sees one GPU, which has index 0."""
    return torch.device(mesh.device_type, 0) if mesh.device_type == "cuda" else torch.device("cpu")


def shard(root: Policy | Critic, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Apply `fully_shard` to every layer, and to the root with the remaining parameters.

    Args:
        root: the model; it is changed in place.
        mesh: the FSDP ranks.
        dtype: compute dtype, to which FSDP2 rounds the weights when it gathers them.
    """
    # Casting inputs would round the fp32 old log-probs and advantages of a pack to bf16.
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in root.model.base_model.layers:  # type: ignore[union-attr]
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(root, mesh=mesh, mp_policy=precision)


def make_optimizer(root: nn.Module, settings: TrainerConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that require a gradient."""
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
    """Clip the gradients, update the weights unless a gradient is not finite, and clear the gradients (collective).

    Args:
        root: the sharded model.
        optimizer: its optimizer.
        rate: learning rate of this update.
        settings: clipping, and what happens to gradients that are not finite.
        field: configuration field of the learning rate, for the error message.

    Returns:
        The norm of the gradients before clipping, and whether the weights were updated.

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
            f"the gradient norm is {norm}, and with trainer.nonfinite=stop the run stops. The weights are those before "
            f"this update. Lower {field}, or use trainer.nonfinite=skip to skip such updates."
        )
    optimizer.zero_grad(set_to_none=True)
    return norm, finite


def full_state(root: nn.Module) -> dict[str, torch.Tensor]:
    """All master weights by Hugging Face name, on the CPU of rank 0; empty on other ranks (collective)."""
    state = get_model_state_dict(root, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {
        name.removeprefix(MODEL_PREFIX): tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)
    }
