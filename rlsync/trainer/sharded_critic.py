"""The critic under FSDP2 with its optimizer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.distributed.device_mesh import DeviceMesh

from rlsync.models.critic import Critic
from rlsync.models.load import load_critic
from rlsync.models.native_attention import use_flash
from rlsync.trainer.fsdp import full_state, make_optimizer, mesh_device, shard, torch_dtype
from rlsync.trainer.settings import TrainerSettings


class ShardedCritic:
    """A Critic sharded over `mesh`, with fp32 master weights and a forward pass in the compute dtype.

    All of its weights are trained, also if the policy trains LoRA adapters only.

    Args:
        settings: the settings of this trainer rank.
        path: folder or hub id of the model that the critic starts from.
        mesh: the FSDP ranks.
    """

    def __init__(self, settings: TrainerSettings, path: str, mesh: DeviceMesh) -> None:
        self.dtype = torch_dtype(settings.model.dtype)
        self.mesh, self.device = mesh, mesh_device(mesh)
        model = load_critic(path, settings.kernels.mode, settings.model.revision_of(path))
        if settings.native:
            use_flash(model, self.device, self.dtype)
        self.hf_config = model.config
        if settings.trainer.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.critic = Critic(model, mode=settings.kernels.mode, leaves=settings.leaves, dtype=self.dtype)
        self.critic.train()
        shard(self.critic, mesh, self.dtype)
        self.settings = replace(settings.trainer, lr=settings.critic.lr, adam_eps=settings.critic.adam_eps)
        """The trainer's settings with the critic's learning rate and epsilon."""
        self.optimizer = make_optimizer(self.critic, self.settings)

    def full_image(self) -> dict[str, torch.Tensor]:
        """The whole critic (collective).

        Returns:
            Tensors in the compute dtype by Hugging Face name, on rank 0; an empty dict on other ranks.
        """
        return {name: tensor.to(self.dtype, copy=True) for name, tensor in full_state(self.critic).items()}
