"""Low-rank adapters (LoRA) whose forward pass uses one merged weight.

The merged weight W = W0 + s B A is computed and rounded once after each update, and the rollout engine receives it too.
The forward pass multiplies by W only: x W0 + s (x A) B would be rounded differently. The backward pass computes the
gradients of A and B from this formula of W.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from rlsync.config.lora import LoraConfig
from rlsync.kernels.ops import backend

_ADAPTER_PARAMETERS = ("lora_a", "lora_b")


class _LowRankGradient(torch.autograd.Function):
    """Passes the output y of the merged layer through, and adds the gradients of A and B."""

    @staticmethod
    def forward(ctx, y, x, a, b, scale):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, a, b)
        ctx.scale = scale
        return y.view_as(y)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, a, b = ctx.saved_tensors
        kind = x.dtype if x.is_cuda else torch.float32  # bf16 products are slow on a CPU
        rows, inputs = (t.reshape(-1, t.shape[-1]).to(kind) for t in (grad, x))
        down = inputs @ a.to(kind).t()  # [T, rank]
        grad_a = ctx.scale * ((rows @ b.to(kind)).t() @ inputs)
        grad_b = ctx.scale * (rows.t() @ down)
        return grad, None, grad_a.to(a.dtype), grad_b.to(b.dtype), None


class LoraLinear(nn.Linear):
    """A mix-in over the class of a linear layer whose weight is the merged one."""

    lora_a: nn.Parameter
    """[rank, in]: the matrix A."""
    lora_b: nn.Parameter
    """[out, rank]: the matrix B."""
    lora_scale: float
    """The factor s of B A."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        return _LowRankGradient.apply(super().forward(x), x, self.lora_a, self.lora_b, self.lora_scale)


def add_lora(model: nn.Module, config: LoraConfig, seed: int) -> None:
    """Add adapters to the target layers of a model, and freeze all other weights.

    As in PEFT, A is uniform in [-1 / sqrt(in), 1 / sqrt(in)] and B is zero.

    Args:
        model: the model, before `fully_shard`; it is changed in place.
        config: rank, scale and target layers.
        seed: seed of the initial values of A.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in config.targets:
            bound = 1.0 / math.sqrt(module.in_features)
            a = generator.uniform(-bound, bound, (config.rank, module.in_features))
            module.__class__ = _with_lora(type(module))  # type: ignore[arg-type]
            module.lora_a = nn.Parameter(torch.from_numpy(a).to(module.weight))
            module.lora_b = nn.Parameter(torch.zeros(module.out_features, config.rank).to(module.weight))
            module.lora_scale = config.scale  # type: ignore[assignment]


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Names and modules of all layers with an adapter."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def is_adapter(name: str) -> bool:
    """Whether `name` is the name of an adapter's parameter A or B."""
    return name.rpartition(".")[2] in _ADAPTER_PARAMETERS


def merged_rows(base: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """Rows of the merged weight W0 + s B A. Each row is independent of the others.

    Args:
        base: [rows, in], rows of W0.
        a: [rank, in], the whole matrix A.
        b: [rows, rank], rows of B.
        scale: the factor s.

    Returns:
        [rows, in] fp32.
    """
    product = backend(b).matmul(b.float(), a.float().t().contiguous(), None, 1, torch.float32)
    return base.float() + scale * product


@functools.cache
def _with_lora(base: type[nn.Linear]) -> type[nn.Linear]:
    return type(f"Lora{base.__name__}", (LoraLinear, base), {})
