"""The policy under FSDP2 with its optimizer, and likewise the frozen reference without one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from rlsync.kernels.row_ops import share_of
from rlsync.models.load import load_model
from rlsync.models.lora import add_lora, is_adapter, lora_layers, merged_rows
from rlsync.models.native_attention import use_flash
from rlsync.models.policy import Policy
from rlsync.trainer.fsdp import MODEL_PREFIX, full_state, make_optimizer, mesh_device, shard, torch_dtype
from rlsync.trainer.settings import TrainerSettings
from rlsync.weight_sync.digest import Part, whole_rows
from rlsync.weight_sync.plan import ParamSpec


class Sharded:
    """A Policy sharded over `mesh`, with fp32 master weights and a forward pass in the compute dtype.

    Args:
        settings: the settings of this trainer rank.
        model_path: folder or hub id of the model.
        mesh: the FSDP ranks.
        trainable: False for a frozen reference, which has no optimizer.
    """

    def __init__(self, settings: TrainerSettings, model_path: str, mesh: DeviceMesh, *, trainable: bool) -> None:
        self.dtype = torch_dtype(settings.model.dtype)
        self.mesh, self.device = mesh, mesh_device(mesh)
        model = load_model(model_path, settings.kernels.mode, settings.model.revision_of(model_path))
        if settings.native:
            use_flash(model, self.device, self.dtype)
        self.hf_config = model.config
        if trainable and settings.trainer.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.policy = Policy(
            model,
            mode=settings.kernels.mode,
            leaves=settings.leaves,
            dtype=self.dtype,
            temperature=settings.temperature,
        )
        self.policy.train(trainable).requires_grad_(trainable)
        if trainable and settings.model.lora.rank:
            add_lora(model, settings.model.lora, settings.seed)
        shard(self.policy, mesh, self.dtype)
        self._bases = {name: _compact(_local(layer.weight), self.dtype) for name, layer in lora_layers(model)}
        self.optimizer = make_optimizer(self.policy, settings.trainer) if trainable else None

    @torch.no_grad()
    def merge_adapters(self) -> None:
        """Recompute the merged weights of all layers with adapters after an update (collective).

        Without adapters it does nothing.
        """
        for name, layer in lora_layers(self.policy.model):
            a = _full(layer.lora_a)
            _local(layer.weight).copy_(merged_rows(self._bases[name], a, _local(layer.lora_b), layer.lora_scale))

    def _weights(self) -> Iterator[tuple[str, DTensor]]:
        """Names and master weights of the canonical tensors, in order; a tied tensor appears once."""
        # After a forward pass FSDP keeps the root's parameters gathered for a backward pass, which may never come.
        self.policy.reshard()  # type: ignore[operator]
        for name, param in self.policy.named_parameters():
            assert isinstance(param, DTensor)
            if not is_adapter(name):
                yield name.removeprefix(MODEL_PREFIX), param

    def specs(self) -> list[ParamSpec]:
        """Names, shapes and compute dtype of the canonical tensors, in order."""
        dtype = str(self.dtype).removeprefix("torch.")
        return [ParamSpec(name=name, shape=tuple(param.shape), dtype=dtype) for name, param in self._weights()]

    def local_parts(self) -> Iterator[Part]:
        """This rank's rows of the canonical tensors, as fp32 master weights."""
        rank = self.mesh.get_local_rank()
        for name, param in self._weights():
            first, _ = share_of(param.shape[0], self.mesh.size(), rank)
            yield whole_rows(name, _local(param), first)

    def full_image(self) -> dict[str, torch.Tensor]:
        """The whole model with merged adapters (collective).

        Returns:
            Tensors in the compute dtype by Hugging Face name, on rank 0; an empty dict on other ranks.
        """
        tied = self.hf_config.tie_word_embeddings
        return {
            name: tensor.to(self.dtype, copy=True)  # a dense copy, because the gathered tensor may be a view
            for name, tensor in full_state(self.policy).items()
            if not (tied and name == "lm_head.weight") and not is_adapter(name)
        }

    def adapter_image(self) -> dict[str, torch.Tensor]:
        """The fp32 matrices A and B of every adapter, by their names in PEFT (collective); empty without adapters."""
        return {
            f"base_model.model.{name}.lora_{kind}.weight": _full(param).cpu()
            for name, layer in lora_layers(self.policy.model)
            for kind, param in (("A", layer.lora_a), ("B", layer.lora_b))
        }


def _full(param: torch.Tensor) -> torch.Tensor:
    """The whole tensor of a sharded parameter (collective)."""
    assert isinstance(param, DTensor)
    whole: torch.Tensor = param.detach().full_tensor()  # type: ignore[attr-defined]
    return whole


def _local(param: torch.Tensor) -> torch.Tensor:
    """This rank's rows of a sharded parameter, as a view of its storage."""
    assert isinstance(param, DTensor)
    with torch.no_grad():  # avoids the cost of DTensor's dispatch
        return param.to_local().detach()


def _compact(t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy of `t` in `dtype` if no value changes by that, and in its own dtype otherwise."""
    small = t.to(dtype, copy=True)
    return small if torch.equal(small.to(t.dtype), t) else t.clone()
